//! `model.safetensors`: read once, in order, checked and hashed on the way.
//!
//! The file is read, not mapped: a mapped file that somebody truncates kills the process with
//! SIGBUS, and candle copies every tensor anyway. Only one tensor is held twice at a time, so
//! loading peaks at the model plus its largest tensor (47 MB of word embeddings).

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use safetensors::tensor::{Dtype, Metadata};
use sha2::{Digest, Sha256};

use crate::config::ModelConfig;
use crate::files::open_regular;
use crate::{DIMS, Error};

/// A header of 30,000 bytes describes gte-small; a thousand times that is a broken file.
const MAX_HEADER_BYTES: u64 = 32 << 20;

/// The tensors of the encoder, in f32, under their names without a `bert.` prefix.
pub(crate) struct Weights {
    values: HashMap<String, (Vec<usize>, Vec<f32>)>,
    /// Hash of the whole file, lower-case hex.
    pub sha256: String,
}

impl Weights {
    /// Reads the tensors `config` asks for and skips the rest (pooler, position ids), whatever
    /// their type. F32 and F16 are accepted; a value that is not finite, a wrong shape, a missing
    /// tensor or a file whose size does not match its header is an error that names it.
    pub fn read(path: &Path, config: &ModelConfig) -> Result<Weights, Error> {
        let (file, size) = open_regular(path)?;
        let mut reader = HashingReader::new(file, path);
        let metadata = read_header(&mut reader, size)?;

        let names = metadata.offset_keys();
        let prefix = if names.iter().any(|name| name.starts_with("bert.embeddings.")) {
            "bert."
        } else {
            ""
        };
        let mut wanted = shapes(config);
        let mut tensors = HashMap::with_capacity(wanted.len());
        let mut bytes = Vec::new();
        for full_name in &names {
            let Some(info) = metadata.info(full_name) else {
                return Err(Error::corrupt(path, format_args!("no entry for \"{full_name}\"")));
            };
            let length = info.data_offsets.1 - info.data_offsets.0;
            let name = full_name.strip_prefix(prefix).unwrap_or(full_name);
            let Some(shape) = wanted.remove(name) else {
                reader.skip(length)?;
                continue;
            };
            if info.shape != shape {
                return Err(Error::corrupt(
                    path,
                    format_args!(
                        "tensor \"{full_name}\" has shape {:?}, the configuration asks for {shape:?}",
                        info.shape
                    ),
                ));
            }
            bytes.resize(length, 0);
            reader.fill(&mut bytes)?;
            let values = to_f32(&bytes, info.dtype).ok_or_else(|| {
                Error::unsupported(
                    path,
                    format_args!(
                        "tensor \"{full_name}\" is {:?}, only F32 and F16 are read",
                        info.dtype
                    ),
                )
            })?;
            if !all_finite(&values) {
                return Err(Error::corrupt(
                    path,
                    format_args!("tensor \"{full_name}\" holds a value that is not finite"),
                ));
            }
            tensors.insert(name.to_owned(), (shape, values));
        }
        if let Some(name) = wanted.keys().min() {
            return Err(Error::corrupt(path, format_args!("tensor \"{prefix}{name}\" is missing")));
        }
        Ok(Weights { values: tensors, sha256: reader.finish()? })
    }

    /// Takes the values of one tensor, row by row.
    pub fn take(&mut self, name: &str) -> Result<Vec<f32>, Error> {
        match self.values.remove(name) {
            Some((_, values)) => Ok(values),
            None => Err(Error::internal(format_args!("tensor \"{name}\" was not read"))),
        }
    }

    /// The tensors as candle's modules look them up.
    pub fn var_builder(self) -> candle_core::Result<VarBuilder<'static>> {
        let tensors = self
            .values
            .into_iter()
            .map(|(name, (shape, values))| {
                Ok((name, Tensor::from_vec(values, shape, &Device::Cpu)?))
            })
            .collect::<candle_core::Result<_>>()?;
        Ok(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))
    }
}

/// Whether no value is NaN or infinite. Without a way out in the middle, so that it is vectorised:
/// 5 ms instead of 20 for the 22 million of MiniLM.
fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    values.iter().fold(true, |finite, value| finite & (value.to_bits() & EXPONENT != EXPONENT))
}

/// Reads the length, then the JSON, and checks that the tensors fill the rest of the file exactly.
fn read_header(reader: &mut HashingReader<'_>, size: u64) -> Result<Metadata, Error> {
    let path = reader.path;
    let mut length = [0; 8];
    reader.fill(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES || length > size.saturating_sub(8) {
        return Err(Error::corrupt(
            path,
            format_args!("its header claims {length} bytes in a file of {size}"),
        ));
    }
    let mut header = vec![0; length as usize];
    reader.fill(&mut header)?;
    // Deserializing checks that the tensors lie end to end and that shapes match their sizes.
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| Error::corrupt(path, e))?;
    let data = metadata
        .offset_keys()
        .last()
        .and_then(|name| metadata.info(name))
        .map_or(0, |info| info.data_offsets.1 as u64);
    if 8 + length + data != size {
        return Err(Error::corrupt(
            path,
            format_args!("its tensors need {} bytes and it has {size}", 8 + length + data),
        ));
    }
    Ok(metadata)
}

/// Name and shape of each tensor of the encoder.
fn shapes(config: &ModelConfig) -> HashMap<String, Vec<usize>> {
    let mut shapes = HashMap::new();
    let mut add = |name: String, shape: &[usize]| {
        shapes.insert(name, shape.to_vec());
    };
    add("embeddings.word_embeddings.weight".into(), &[config.vocab_size, DIMS]);
    add("embeddings.position_embeddings.weight".into(), &[config.positions, DIMS]);
    add("embeddings.token_type_embeddings.weight".into(), &[config.token_types, DIMS]);
    add("embeddings.LayerNorm.weight".into(), &[DIMS]);
    add("embeddings.LayerNorm.bias".into(), &[DIMS]);
    for layer in 0..config.layers {
        let layer = format!("encoder.layer.{layer}");
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            add(format!("{layer}.attention.{part}.weight"), &[DIMS, DIMS]);
            add(format!("{layer}.attention.{part}.bias"), &[DIMS]);
        }
        add(format!("{layer}.intermediate.dense.weight"), &[config.intermediate, DIMS]);
        add(format!("{layer}.intermediate.dense.bias"), &[config.intermediate]);
        add(format!("{layer}.output.dense.weight"), &[DIMS, config.intermediate]);
        add(format!("{layer}.output.dense.bias"), &[DIMS]);
        for norm in ["attention.output", "output"] {
            add(format!("{layer}.{norm}.LayerNorm.weight"), &[DIMS]);
            add(format!("{layer}.{norm}.LayerNorm.bias"), &[DIMS]);
        }
    }
    shapes
}

/// Little-endian bytes to f32; `None` for a type that is not a float of 2 or 4 bytes.
fn to_f32(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    match dtype {
        Dtype::F32 => {
            Some(bytes.as_chunks::<4>().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect())
        }
        Dtype::F16 => Some(
            bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|&chunk| half::f16::from_le_bytes(chunk).to_f32())
                .collect(),
        ),
        _ => None,
    }
}

/// Reads a file front to back and hashes every byte that passes.
struct HashingReader<'p> {
    file: BufReader<File>,
    path: &'p Path,
    hasher: Sha256,
}

impl<'p> HashingReader<'p> {
    fn new(file: File, path: &'p Path) -> Self {
        HashingReader { file: BufReader::with_capacity(1 << 16, file), path, hasher: Sha256::new() }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.file.read_exact(bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::corrupt(self.path, "it ends before its last tensor")
            }
            _ => Error::io(self.path, error),
        })?;
        self.hasher.update(&*bytes);
        Ok(())
    }

    fn skip(&mut self, mut length: usize) -> Result<(), Error> {
        let mut buffer = [0; 1 << 14];
        while length > 0 {
            let part = length.min(buffer.len());
            self.fill(&mut buffer[..part])?;
            length -= part;
        }
        Ok(())
    }

    /// The hash, once nothing is left to read.
    fn finish(mut self) -> Result<String, Error> {
        let mut beyond = [0];
        match self.file.read(&mut beyond) {
            Ok(0) => Ok(hex(&self.hasher.finalize())),
            Ok(_) => Err(Error::corrupt(self.path, "it grew while it was read")),
            Err(error) => Err(Error::io(self.path, error)),
        }
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
