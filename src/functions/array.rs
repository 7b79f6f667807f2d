//! `embed(text[]) → vector[]`.

#![allow(unsafe_code)]

use std::borrow::Cow;

use pgrx::{PgSqlErrorCode, pg_sys, varlena};
use pgvector_compat::vector_type_oid;

use crate::embedder;
use crate::errors::{Failure, Outcome, check_memory, error, internal, vector};
use crate::functions::embed::to_datum;
use crate::pg::call::{Call, export};
use crate::pg::text::{Detoasted, to_utf8};

export!(embed_array_gte_small, pg_finfo_embed_array_gte_small, embed_array);

/// The most bytes that Postgres allocates in one piece (`MaxAllocSize`).
const MAX_BYTES: usize = 0x3fff_ffff;

/// Bytes of a `vector(384)` with its header: a multiple of 4, so no padding lies between two.
const VECTOR_BYTES: usize = 8 + 4 * gte_engine::DIMS;

/// The most vectors an array can have.
const MAX_ELEMENTS: usize = MAX_BYTES / VECTOR_BYTES;

/// Texts per call of the embedder.
const SLICE: usize = 2048;

/// STRICT. The result has the argument's length, order and bounds; a NULL element stays NULL.
fn embed_array(call: Call) -> Outcome<pg_sys::Datum> {
    let datum =
        call.argument(0).ok_or_else(|| internal("a STRICT function was called with NULL"))?;
    // SAFETY: the SQL script declares the argument as text[].
    let contents = unsafe { TextArray::deconstruct(datum) }?;
    let element_type = vector_type_oid().ok_or_else(|| {
        error(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            "extension \"vector\" is not installed",
            "The embeddings have no type.",
            "Run CREATE EXTENSION vector.",
        )
    })?;

    // In slices, so that Rust holds only a few MB of vectors at a time.
    let mut result = contents.result(element_type)?;
    for slice in contents.elements.chunks(SLICE) {
        let detoasted: Vec<Option<Detoasted>> = slice
            .iter()
            // SAFETY: the elements of a text[] are text, and the array outlives this function.
            .map(|element| element.map(|datum| unsafe { Detoasted::new(datum) }))
            .collect();
        let texts: Vec<Cow<'_, str>> =
            detoasted.iter().flatten().map(|text| to_utf8(text.bytes())).collect::<Outcome<_>>()?;
        check_memory()?;
        let texts: Vec<&str> = texts.iter().map(Cow::as_ref).collect();
        let mut embeddings = embedder::embed_many(&texts)?.into_iter();
        for text in &detoasted {
            match text {
                None => result.push_null(),
                Some(_) => {
                    let embedding =
                        embeddings.next().ok_or_else(|| internal("a text was left out"))?;
                    result.push(to_datum(&embedding)?)?;
                }
            }
        }
    }
    result.finish()
}

fn too_many(elements: usize) -> Failure {
    error(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        format!("array has {elements} elements, too many to embed at once"),
        format!("PostgreSQL can return an array of at most {MAX_ELEMENTS} embeddings."),
        "Embed the texts in several calls.",
    )
}

/// The elements of an array, and its bounds.
struct TextArray {
    elements: Vec<Option<pg_sys::Datum>>,
    dimensions: Vec<i32>,
    lower_bounds: Vec<i32>,
}

impl TextArray {
    /// # Safety
    /// `datum` must be a text[] that outlives the value.
    unsafe fn deconstruct(datum: pg_sys::Datum) -> Outcome<TextArray> {
        // SAFETY: the caller guarantees an array, and it is detoasted before it is read. ARR_DIMS
        // follows the header and ARR_LBOUND follows ARR_DIMS, with `ndim` numbers each.
        // deconstruct_array returns `count` values and nulls.
        unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            let ndim = (*array).ndim as usize;
            let bounds = array.add(1).cast::<i32>();
            let dimensions = std::slice::from_raw_parts(bounds, ndim).to_vec();
            let lower_bounds = std::slice::from_raw_parts(bounds.add(ndim), ndim).to_vec();
            let elements: usize = dimensions.iter().map(|&n| n as usize).product();
            if ndim > 0 && elements > MAX_ELEMENTS {
                return Err(too_many(elements));
            }
            let (mut values, mut nulls, mut count) =
                (std::ptr::null_mut(), std::ptr::null_mut(), 0);
            pg_sys::deconstruct_array(
                array,
                pg_sys::TEXTOID,
                -1,
                false,
                pg_sys::TYPALIGN_INT as std::ffi::c_char,
                &mut values,
                &mut nulls,
                &mut count,
            );
            let mut elements = vector(count as usize)?;
            elements.extend((0..count as usize).map(|i| (!*nulls.add(i)).then(|| *values.add(i))));
            Ok(TextArray { elements, dimensions, lower_bounds })
        }
    }

    /// An empty array of vectors with the same bounds.
    fn result(&self, element_type: pg_sys::Oid) -> Outcome<VectorArray> {
        let ndim = self.dimensions.len();
        let vectors = self.elements.iter().flatten().count();
        let nulls = vectors < self.elements.len();
        let bounds = size_of::<pg_sys::ArrayType>();
        let bitmap = bounds + 2 * size_of::<i32>() * ndim;
        let bitmap_bytes = if nulls { self.elements.len().div_ceil(8) } else { 0 };
        let data = (bitmap + bitmap_bytes).next_multiple_of(pg_sys::MAXIMUM_ALIGNOF as usize);
        let size = data + vectors * VECTOR_BYTES;
        if size > MAX_BYTES {
            return Err(too_many(self.elements.len()));
        }
        // SAFETY: palloc returns `size` bytes of maximum alignment, or raises an error. Header,
        // bounds and bitmap are the first `data` bytes, fewer than `size`, and are written here.
        unsafe {
            let start = pg_sys::palloc(size).cast::<u8>();
            start.write_bytes(0, data);
            varlena::set_varsize_4b(start.cast(), size as i32);
            let array = start.cast::<pg_sys::ArrayType>();
            (*array).ndim = ndim as i32;
            (*array).dataoffset = if nulls { data as i32 } else { 0 };
            (*array).elemtype = element_type;
            let bounds = start.add(bounds).cast::<i32>();
            for (i, n) in self.dimensions.iter().chain(&self.lower_bounds).enumerate() {
                bounds.add(i).write(*n);
            }
            let bitmap = nulls.then_some(bitmap);
            Ok(VectorArray { start, bitmap, filled: data, size, elements: 0 })
        }
    }
}

/// An array of vectors while it is filled. It has its full size from the start, which takes 1.5 kB
/// per element; one datum per element and then an array of them would take 3.5 kB.
struct VectorArray {
    start: *mut u8,
    /// Offset of the null bitmap, if there is a NULL: bit 0 is NULL, bit 1 a value.
    bitmap: Option<usize>,
    /// Bytes that are written.
    filled: usize,
    size: usize,
    elements: usize,
}

impl VectorArray {
    fn push_null(&mut self) {
        self.elements += 1;
    }

    /// Copies a `vector` datum of 384 dimensions and frees it.
    fn push(&mut self, datum: pg_sys::Datum) -> Outcome<()> {
        if self.filled + VECTOR_BYTES > self.size {
            return Err(internal("the array is full"));
        }
        // SAFETY: the datum is a plain varlena in its own chunk. Its size is checked to be
        // VECTOR_BYTES, and the array has room for it. The bitmap has a bit for each element.
        unsafe {
            let vector = datum.cast_mut_ptr::<pg_sys::varlena>();
            if varlena::varsize_4b(vector) != VECTOR_BYTES {
                return Err(internal("a vector has another size than all the others"));
            }
            let to = self.start.add(self.filled);
            vector.cast::<u8>().copy_to_nonoverlapping(to, VECTOR_BYTES);
            pg_sys::pfree(vector.cast());
            if let Some(bitmap) = self.bitmap {
                *self.start.add(bitmap + self.elements / 8) |= 1 << (self.elements % 8);
            }
        }
        self.filled += VECTOR_BYTES;
        self.elements += 1;
        Ok(())
    }

    fn finish(self) -> Outcome<pg_sys::Datum> {
        if self.filled == self.size {
            Ok(pg_sys::Datum::from(self.start))
        } else {
            Err(internal("the array was not filled"))
        }
    }
}
