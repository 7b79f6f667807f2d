//! Postgres's calling convention, version 1.
//!
//! The SQL functions do not use `#[pg_extern]`: their arguments are bytes in the database's
//! encoding and not Rust strings, large texts are freed as soon as they are embedded, and trigger,
//! array and row results need the raw call. The macro `export!` makes each of them a safe function
//! from arguments to an [`Outcome`].

#![allow(unsafe_code)]

use pgrx::pg_sys;

use crate::errors::{Outcome, check_memory};

/// A call in progress.
#[derive(Clone, Copy)]
pub struct Call(pg_sys::FunctionCallInfo);

impl Call {
    /// # Safety
    /// `fcinfo` must be the one that Postgres passed to the function, and the value must not
    /// outlive the call.
    pub unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Call {
        Call(fcinfo)
    }

    /// Argument `n`, counted from 0; `None` for NULL.
    pub fn argument(&self, n: usize) -> Option<pg_sys::Datum> {
        // SAFETY: the caller of `new` guarantees the pointer; Postgres passes as many arguments as
        // the SQL script declares.
        unsafe { pgrx::fcinfo::pg_getarg_datum(self.0, n) }
    }

    /// The pointer, for Postgres's own functions.
    pub fn info(&self) -> pg_sys::FunctionCallInfo {
        self.0
    }
}

/// Runs a function. Returns its datum, or raises its error with SQLSTATE, detail and hint.
pub fn run(call: Call, body: fn(Call) -> Outcome<pg_sys::Datum>) -> pg_sys::Datum {
    match check_memory().and_then(|()| body(call)) {
        Ok(datum) => datum,
        Err(report) => {
            report.report(pgrx::PgLogLevel::ERROR);
            unreachable!("a report at level ERROR does not return")
        }
    }
}

/// Exports `$body: fn(Call) -> Outcome<Datum>` to Postgres as `$symbol`.
macro_rules! export {
    ($symbol:ident, $finfo:ident, $body:path) => {
        /// Tells Postgres the calling convention.
        // SAFETY: the symbol has the name and the type that Postgres expects.
        #[unsafe(no_mangle)]
        pub extern "C" fn $finfo() -> &'static pgrx::pg_sys::Pg_finfo_record {
            static VERSION_1: pgrx::pg_sys::Pg_finfo_record =
                pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
            &VERSION_1
        }

        /// Called by Postgres only.
        ///
        /// # Safety
        /// `fcinfo` must be a valid call of the function as the SQL script declares it.
        // SAFETY: the suffix `_gte_small` makes the symbol unique to this library.
        #[unsafe(no_mangle)]
        #[pgrx::pg_guard]
        pub unsafe extern "C-unwind" fn $symbol(
            fcinfo: pgrx::pg_sys::FunctionCallInfo,
        ) -> pgrx::pg_sys::Datum {
            // SAFETY: the caller guarantees `fcinfo`.
            $crate::pg::call::run(unsafe { $crate::pg::call::Call::new(fcinfo) }, $body)
        }
    };
}

pub(crate) use export;
