//! The settings (GUCs). Private statics, with getters that return the types the code works with.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use gte_engine::Precision;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use pgrx::{pg_guard, pg_sys};

use crate::pg::plans;
use crate::search::iterative_scan;

static MODEL_PATH: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static MEMO_SIZE: GucSetting<i32> = GucSetting::<i32>::new(128);
static PRECISION: GucSetting<WantedPrecision> =
    GucSetting::<WantedPrecision>::new(WantedPrecision::Auto);
static THREADS: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_THREADS: GucSetting<i32> = GucSetting::<i32>::new(0);
static KERNELS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static DEFER: GucSetting<bool> = GucSetting::<bool>::new(false);
static ITERATIVE_SCAN: GucSetting<bool> = GucSetting::<bool>::new(true);
static OWN_VECTORS: GucSetting<bool> = GucSetting::<bool>::new(false);
static ON_TRUNCATE: GucSetting<OnTruncate> = GucSetting::<OnTruncate>::new(OnTruncate::Silent);

/// The most entries of the memo. With 1.6 kB each that would be 26 MB, so the memo's limit of bytes
/// is reached first.
const MAX_MEMO_SIZE: i32 = 16_384;

/// The largest number of threads that can be set: a text has no work for more.
const LARGEST_THREADS: i32 = 64;

/// A parallel operation may load the library, for example a CREATE INDEX on `embed(content)`.
/// Without this flag Postgres refuses to assign the values that were set before ("cannot be set
/// during a parallel operation"), and the session continues with the defaults. All minor releases
/// since November 2024 have the flag in their headers.
const IN_PARALLEL: GucFlags = GucFlags::from_bits_retain(pg_sys::GUC_ALLOW_IN_PARALLEL as i32);

/// The values of `gte_small.precision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
enum WantedPrecision {
    #[name = c"auto"]
    Auto,
    #[name = c"f32"]
    F32,
    #[name = c"bf16"]
    Bf16,
}

/// What happens to a text with more tokens than the model reads: the values of
/// `gte_small.on_truncate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum OnTruncate {
    /// It is truncated, as in the reference implementation.
    #[name = c"silent"]
    Silent,
    /// It is truncated, with a warning.
    #[name = c"warning"]
    Warning,
    /// It is refused.
    #[name = c"error"]
    Error,
}

/// Called with a new value before the setting has it, and with the data of a check hook.
pub type Assigned = extern "C-unwind" fn(i32, *mut c_void);

/// Defines the settings and reserves their prefix, so that a misspelt one is an error.
pub fn define(memo_size_assigned: Assigned) {
    // SAFETY: the hook has the type that Postgres expects, and is guarded against panics.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"gte_small.model_path",
            c"Directory of the embedding model.",
            c"An absolute path to a directory with config.json, tokenizer.json and model.safetensors, readable by the server. Empty: the directory gte-small in the server's share directory.",
            &MODEL_PATH,
            GucContext::Suset,
            // Only privileged roles may read where the server keeps its files.
            GucFlags::SUPERUSER_ONLY.union(IN_PARALLEL),
            None,
            Some(forget_plans),
            None,
        );
    }
    // SAFETY: the hook has the type that Postgres expects, and it does not panic.
    unsafe {
        GucRegistry::define_int_guc_with_hooks(
            c"gte_small.memo_size",
            c"Number of texts whose embeddings a backend remembers.",
            c"A text that comes again from the same role is not embedded again. 0 switches the memo off and empties it. It never takes more than 4 MB, whatever the number.",
            &MEMO_SIZE,
            0,
            MAX_MEMO_SIZE,
            GucContext::Userset,
            IN_PARALLEL,
            None,
            Some(memo_size_assigned),
            None,
        );
    }
    // SAFETY: the hook has the type that Postgres expects, and is guarded against panics.
    unsafe {
        GucRegistry::define_enum_guc_with_hooks(
            c"gte_small.precision",
            c"Number format of the model's weights.",
            c"f32 gives the reference's vectors, bf16 is faster where the CPU has instructions for it, with cosines of 0.9999 and more to the reference. auto takes the faster.",
            &PRECISION,
            // All vectors of a table should have one precision, so a plain user cannot choose.
            GucContext::Suset,
            IN_PARALLEL,
            None,
            Some(forget_plans_of_precision),
            None,
        );
    }
    GucRegistry::define_int_guc(
        c"gte_small.threads",
        c"Threads a backend embeds with.",
        c"0 takes, for each call, the cores that nobody else is using at that moment, at least one and at most eight. A number above the cores or above gte_small.max_threads counts as the smaller of these.",
        &THREADS,
        0,
        LARGEST_THREADS,
        GucContext::Userset,
        IN_PARALLEL,
    );
    GucRegistry::define_int_guc(
        c"gte_small.max_threads",
        c"Most threads a backend embeds with, whatever gte_small.threads says.",
        c"0 takes the cores that the server may use. A number above them counts as the cores.",
        &MAX_THREADS,
        0,
        LARGEST_THREADS,
        // Each thread keeps buffers, so a plain user cannot choose.
        GucContext::Suset,
        IN_PARALLEL,
    );
    // SAFETY: the hook has the type that Postgres expects, and is guarded against panics.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"gte_small.kernels",
            c"Kernels by name, for tests of those that this CPU would not choose.",
            c"Empty: the fastest of the precision. embed_model() shows those in use.",
            &KERNELS,
            GucContext::Suset,
            GucFlags::NO_SHOW_ALL.union(IN_PARALLEL),
            None,
            Some(forget_plans),
            None,
        );
    }
    GucRegistry::define_enum_guc(
        c"gte_small.on_truncate",
        c"What happens to a text that is longer than the model reads.",
        c"silent embeds its beginning, warning does so and says it, error refuses the text.",
        &ON_TRUNCATE,
        GucContext::Userset,
        IN_PARALLEL,
    );
    GucRegistry::define_bool_guc(
        c"gte_small.defer",
        c"Leaves embeddings to a later backfill.",
        c"The trigger stores NULL where it would embed, and no model is needed.",
        &DEFER,
        GucContext::Userset,
        IN_PARALLEL,
    );
    // SAFETY: the hook is guarded against panics.
    unsafe {
        GucRegistry::define_bool_guc_with_hooks(
            c"gte_small.iterative_scan",
            c"Raises the default of hnsw.iterative_scan to strict_order.",
            c"A search with LIMIT and a filter then goes on until it has its rows. An explicit setting of hnsw.iterative_scan stays.",
            &ITERATIVE_SCAN,
            GucContext::Userset,
            IN_PARALLEL,
            None,
            Some(follow_iterative_scan),
            None,
        );
    }
    GucRegistry::define_bool_guc(
        c"gte_small.own_vectors",
        c"An UPDATE stores the vectors that it brings along.",
        c"The trigger keeps a new vector beside a changed text, and NULL beside an unchanged one. off: a changed text is embedded, and an unchanged one keeps its vector where NULL comes.",
        &OWN_VECTORS,
        GucContext::Userset,
        IN_PARALLEL,
    );
    // SAFETY: the prefix is a NUL-terminated string that Postgres copies.
    unsafe {
        #[cfg(not(feature = "pg14"))]
        pg_sys::MarkGUCPrefixReserved(c"gte_small".as_ptr());
        // Its name before PostgreSQL 15.
        #[cfg(feature = "pg14")]
        pg_sys::EmitWarningsOnPlaceholders(c"gte_small".as_ptr());
    }
}

/// Whether the postmaster is loading `shared_preload_libraries` now.
pub fn in_postmaster() -> bool {
    // SAFETY: a plain flag that only the main thread writes, which this is.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// The directory of the model.
pub fn model_dir() -> PathBuf {
    match MODEL_PATH.get() {
        Some(path) if !path.is_empty() => path_from(&path),
        _ => default_model_dir(),
    }
}

/// The precision of the model; `None`: the fastest.
pub fn precision() -> Option<Precision> {
    match PRECISION.get() {
        WantedPrecision::Auto => None,
        WantedPrecision::F32 => Some(Precision::F32),
        WantedPrecision::Bf16 => Some(Precision::Bf16),
    }
}

/// Threads of a call; 0: automatic.
pub fn threads() -> usize {
    usize::try_from(THREADS.get()).unwrap_or(0)
}

/// Most threads of a call; 0: the cores.
pub fn max_threads() -> usize {
    usize::try_from(MAX_THREADS.get()).unwrap_or(0)
}

/// The name of the kernels; `None`: the fastest of the precision.
pub fn kernels() -> Option<String> {
    let name = KERNELS.get()?.to_string_lossy().into_owned();
    (!name.is_empty()).then_some(name)
}

/// The most texts in the memo; 0: the memo is off.
pub fn memo_size() -> usize {
    usize::try_from(MEMO_SIZE.get()).unwrap_or(0)
}

/// Whether the trigger stores NULL and leaves embeddings to a later backfill.
pub fn defer() -> bool {
    DEFER.get()
}

/// Whether the default of pgvector's iterative scan is raised.
pub fn iterative_scan() -> bool {
    ITERATIVE_SCAN.get()
}

/// `gte_small.iterative_scan` gets a value. This also happens while a transaction is rolled back,
/// so it must not fail.
#[pg_guard]
unsafe extern "C-unwind" fn follow_iterative_scan(wanted: bool, _extra: *mut c_void) {
    iterative_scan::follow(wanted);
}

/// Another model may be in use from now on. This also happens while a transaction is rolled back,
/// so it must not fail.
#[pg_guard]
unsafe extern "C-unwind" fn forget_plans(_path: *const c_char, _extra: *mut c_void) {
    plans::forget();
}

/// [`forget_plans`] for the type of an enumeration.
#[pg_guard]
unsafe extern "C-unwind" fn forget_plans_of_precision(_wanted: i32, _extra: *mut c_void) {
    plans::forget();
}

/// Whether an UPDATE stores the vectors, and the NULL, that it brings along.
pub fn own_vectors() -> bool {
    OWN_VECTORS.get()
}

/// What to do with a text that is too long.
pub fn on_truncate() -> OnTruncate {
    ON_TRUNCATE.get()
}

/// `gte-small` in the server's share directory, beside the extension's own files.
fn default_model_dir() -> PathBuf {
    let mut share = [0; pg_sys::MAXPGPATH as usize];
    // SAFETY: my_exec_path is the NUL-terminated path of the server's executable; get_share_path
    // writes at most MAXPGPATH bytes, NUL included.
    let share = unsafe {
        pg_sys::get_share_path((&raw const pg_sys::my_exec_path).cast(), share.as_mut_ptr());
        CStr::from_ptr(share.as_ptr())
    };
    path_from(share).join("gte-small")
}

fn path_from(path: &CStr) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(path.to_bytes()))
}
