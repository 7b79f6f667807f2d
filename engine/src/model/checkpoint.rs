//! `model.safetensors`: checked, read tensor by tensor, and kept open for the word embeddings.
//!
//! The file is read, not mapped, because SIGBUS kills a process when a mapped file is truncated.
//! The word embeddings (47 of MiniLM's 90 MB) stay in the file. A text needs 1.5 kB of them per
//! token. The operating system caches them once for all processes.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use half::slice::HalfFloatSliceExt;
use once_cell::sync::OnceCell;
use safetensors::tensor::{Dtype, Metadata};
use sha2::{Digest, Sha256};

use crate::model::config::ModelConfig;
use crate::model::files::open_regular;
use crate::{DIMS, Error, memory};

/// gte-small's header has 30,000 bytes. A header of a thousand times that is broken.
const MAX_HEADER_BYTES: u64 = 32 << 20;

/// Bytes that the safetensors library allocates for a byte of the header, at most: a number of a
/// shape has two bytes there and 32 while it is parsed, in a vector that grows by doubling.
const HEADER_MEMORY: usize = 64;

/// The tensor that is not read as a whole by the encoder, but row by row.
pub(crate) const WORD_EMBEDDINGS: &str = "embeddings.word_embeddings.weight";

/// The file of a model's weights.
pub(crate) struct Checkpoint {
    file: File,
    path: PathBuf,
    size: u64,
    modified: Option<SystemTime>,
    /// The tensors that the configuration needs, without the word embeddings. The keys are their
    /// names without a `bert.` prefix.
    tensors: HashMap<String, TensorLocation>,
    word_embeddings: TensorLocation,
    sha256: OnceCell<String>,
}

/// Name, shape and values of a tensor.
pub(crate) type NamedTensor<'a> = (&'a str, &'a [usize], Vec<f32>);

/// The place of a tensor in the file, and its format.
#[derive(Clone)]
struct TensorLocation {
    full_name: String,
    half: bool,
    shape: Vec<usize>,
    start: u64,
}

impl TensorLocation {
    fn bytes_per_value(&self) -> usize {
        if self.half { 2 } else { 4 }
    }
}

impl Checkpoint {
    /// Opens the file and checks that it has the tensors of `config` in F32 or F16 and in the right
    /// shapes, and that its size is the size in its header. Other tensors (pooler, position ids)
    /// are ignored.
    pub fn open(path: &Path, config: &ModelConfig) -> Result<Checkpoint, Error> {
        let (file, size) = open_regular(path)?;
        let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
        let (metadata, data_start) = read_header(&file, path, size)?;
        let prefix = match metadata.info(&format!("bert.{WORD_EMBEDDINGS}")) {
            Some(_) => "bert.",
            None => "",
        };
        let mut tensors = HashMap::new();
        for (name, shape) in shapes(config) {
            let full_name = format!("{prefix}{name}");
            let Some(info) = metadata.info(&full_name) else {
                return Err(Error::corrupt(
                    path,
                    format_args!("tensor \"{full_name}\" is missing"),
                ));
            };
            if info.shape != shape {
                return Err(Error::corrupt(
                    path,
                    format_args!(
                        "tensor \"{full_name}\" has shape {:?}, it must be {shape:?}",
                        info.shape
                    ),
                ));
            }
            let half = match info.dtype {
                Dtype::F32 => false,
                Dtype::F16 => true,
                other => {
                    return Err(Error::unsupported(
                        path,
                        format_args!("tensor \"{full_name}\" is {other:?}, it must be F32 or F16"),
                    ));
                }
            };
            let start = data_start + info.data_offsets.0 as u64;
            tensors.insert(name, TensorLocation { full_name, half, shape, start });
        }
        let word_embeddings = tensors
            .remove(WORD_EMBEDDINGS)
            .ok_or_else(|| Error::internal("the word embeddings are not in the configuration"))?;
        let path = path.to_owned();
        Ok(Checkpoint {
            file,
            path,
            size,
            modified,
            tensors,
            word_embeddings,
            sha256: OnceCell::new(),
        })
    }

    /// Reads one tensor and appends its values, row by row. A value that is not finite is an error.
    pub fn read(&self, name: &str, values: &mut Vec<f32>) -> Result<(), Error> {
        match self.tensors.get(name) {
            Some(location) => self.read_located(location, values),
            None => {
                Err(Error::internal(format_args!("tensor \"{name}\" is not in the configuration")))
            }
        }
    }

    /// Reads one tensor into a new vector.
    pub fn vector(&self, name: &str) -> Result<Vec<f32>, Error> {
        let mut values = Vec::new();
        self.read(name, &mut values)?;
        Ok(values)
    }

    /// Reads the word embedding of one token. `bytes` is a buffer for what the file has.
    pub fn word(
        &self,
        id: u32,
        bytes: &mut [u8; 4 * DIMS],
        row: &mut [f32; DIMS],
    ) -> Result<(), Error> {
        let width = DIMS * self.word_embeddings.bytes_per_value();
        let start = self.word_embeddings.start + u64::from(id) * width as u64;
        self.read_bytes(start, &mut bytes[..width])?;
        if self.word_embeddings.half {
            let mut halves = [half::f16::ZERO; DIMS];
            for (half, &bytes) in halves.iter_mut().zip(bytes[..width].as_chunks::<2>().0) {
                *half = half::f16::from_le_bytes(bytes);
            }
            // Looks up once for all what the CPU has; one by one took half a microsecond a token.
            halves.convert_to_f32_slice(row);
        } else {
            for (value, &bytes) in row.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(bytes);
            }
        }
        self.check_finite(row, &self.word_embeddings)
    }

    /// Whether the file was written to since it was opened. A new file in its place is no change:
    /// the old file stays open.
    pub fn has_changed(&self) -> bool {
        match self.file.metadata() {
            Ok(now) => now.len() != self.size || now.modified().ok() != self.modified,
            Err(_) => true,
        }
    }

    /// Refuses a file that was written to since it was opened: its word embeddings may be of
    /// another model.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        if self.has_changed() {
            return Err(Error::corrupt(&self.path, "it changed while it was in use"));
        }
        Ok(())
    }

    /// sha256 of the whole file, lower-case hex. The first call computes it, in 50 ms for MiniLM.
    pub fn sha256(&self) -> Result<&str, Error> {
        let hash = self.sha256.get_or_try_init(|| {
            let mut hasher = Sha256::new();
            let mut buffer = vec![0; 1 << 20];
            let mut start = 0;
            while start < self.size {
                let part = (self.size - start).min(buffer.len() as u64) as usize;
                self.read_bytes(start, &mut buffer[..part])?;
                hasher.update(&buffer[..part]);
                start += part as u64;
            }
            self.check_unchanged()?;
            Ok(hex(&hasher.finalize()))
        })?;
        Ok(hash)
    }

    /// Reads every tensor except the word embeddings, one at each step of the iterator.
    pub fn read_all(&self) -> impl Iterator<Item = Result<NamedTensor<'_>, Error>> {
        self.tensors.iter().map(|(name, location)| {
            let mut values = Vec::new();
            self.read_located(location, &mut values)?;
            Ok((name.as_str(), location.shape.as_slice(), values))
        })
    }

    /// Number of values of all tensors except the word embeddings.
    pub fn values(&self) -> usize {
        self.tensors.values().map(|location| location.shape.iter().product::<usize>()).sum()
    }

    fn read_located(&self, location: &TensorLocation, values: &mut Vec<f32>) -> Result<(), Error> {
        let count = location.shape.iter().product::<usize>();
        let width = location.bytes_per_value();
        let first = values.len();
        memory::check()?;
        memory::make_room(values, count)?;
        // A buffer of 128 kB stays in the cache.
        let mut buffer = vec![0; 1 << 17];
        let mut start = location.start;
        let mut missing = count;
        while missing > 0 {
            let part = missing.min(buffer.len() / width);
            let bytes = &mut buffer[..part * width];
            self.read_bytes(start, bytes)?;
            values.extend(floats(bytes, location.half));
            start += bytes.len() as u64;
            missing -= part;
        }
        self.check_finite(&values[first..], location)
    }

    fn check_finite(&self, values: &[f32], location: &TensorLocation) -> Result<(), Error> {
        if all_finite(values) {
            return Ok(());
        }
        let name = &location.full_name;
        Err(Error::corrupt(
            &self.path,
            format_args!("tensor \"{name}\" has a value that is not finite"),
        ))
    }

    fn read_bytes(&self, start: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.file.read_exact_at(bytes, start).map_err(|error| unread(&self.path, error))
    }
}

/// The error of a read that failed.
fn unread(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::corrupt(path, "it ends before its last tensor"),
        _ => Error::io(path, error),
    }
}

/// Reads the header: its length, then JSON. Checks that the tensors fill exactly the rest of the
/// file. Returns the place where they begin, too.
fn read_header(mut file: &File, path: &Path, size: u64) -> Result<(Metadata, u64), Error> {
    let mut fill = |bytes: &mut [u8]| file.read_exact(bytes).map_err(|error| unread(path, error));
    let mut length = [0; 8];
    fill(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES || length > size.saturating_sub(8) {
        return Err(Error::corrupt(
            path,
            format_args!("its header has a length of {length} bytes in a file of {size}"),
        ));
    }
    let mut header = memory::vector(length as usize)?;
    header.resize(length as usize, 0);
    fill(&mut header)?;
    let _hold = memory::hold(header.len().saturating_mul(HEADER_MEMORY))?;
    // Deserializing checks that there are no gaps between tensors and that shapes match sizes.
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| Error::corrupt(path, e))?;
    let data = metadata
        .offset_keys()
        .last()
        .and_then(|name| metadata.info(name))
        .map_or(0, |info| info.data_offsets.1 as u64);
    let needed = (8 + length).saturating_add(data);
    if needed != size {
        return Err(Error::corrupt(
            path,
            format_args!("its header and tensors need {needed} bytes, and it has {size}"),
        ));
    }
    Ok((metadata, 8 + length))
}

/// Names and shapes of all tensors of the encoder, in the order of the layers.
fn shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let mut shapes = Vec::new();
    let mut add = |name: String, shape: &[usize]| {
        shapes.push((name, shape.to_vec()));
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

/// Little-endian bytes as f32.
fn floats(bytes: &[u8], half: bool) -> impl Iterator<Item = f32> {
    let (halves, singles): (&[u8], &[u8]) = if half { (bytes, &[]) } else { (&[], bytes) };
    let halves = halves.as_chunks::<2>().0.iter().map(|&b| half::f16::from_le_bytes(b).to_f32());
    let singles = singles.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b));
    halves.chain(singles)
}

/// Whether no value is NaN or infinite. The loop has no early exit, so the compiler vectorises it.
fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    values.iter().fold(true, |finite, value| finite & (value.to_bits() & EXPONENT != EXPONENT))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
