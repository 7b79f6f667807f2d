//! A set of rows as the result of a function.

#![allow(unsafe_code)]

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::errors::{Outcome, error, internal};
use crate::pg::call::Call;

/// The rows of a set-returning function, in a tuplestore: above `work_mem` it spills to disk.
pub struct Rows {
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
}

impl Rows {
    /// An empty set, which becomes the result of the call.
    pub fn begin(call: Call, columns: usize) -> Outcome<Rows> {
        let refused = || {
            error(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "set-valued function called in context that cannot accept a set",
                "Nothing was computed.",
                "Call it in FROM or in a SELECT list.",
            )
        };
        // SAFETY: resultinfo is a ReturnSetInfo if its node tag says so, and is valid during the
        // call. Descriptor and store are allocated in the memory of the query, which outlives the
        // call.
        unsafe {
            let node = (*call.info()).resultinfo;
            if node.is_null() || !pgrx::is_a(node, pg_sys::NodeTag::T_ReturnSetInfo) {
                return Err(refused());
            }
            let result = node.cast::<pg_sys::ReturnSetInfo>();
            let modes = (*result).allowedModes as u32;
            if modes & pg_sys::SetFunctionReturnMode::SFRM_Materialize == 0 {
                return Err(refused());
            }
            let random = modes & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random != 0;
            let before = pg_sys::MemoryContextSwitchTo((*(*result).econtext).ecxt_per_query_memory);
            let mut descriptor: pg_sys::TupleDesc = std::ptr::null_mut();
            let kind =
                pg_sys::get_call_result_type(call.info(), std::ptr::null_mut(), &mut descriptor);
            if kind != pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE
                || (*descriptor).natts as usize != columns
            {
                pg_sys::MemoryContextSwitchTo(before);
                return Err(internal(
                    "the SQL script declares other columns than the library returns",
                ));
            }
            let store = pg_sys::tuplestore_begin_heap(random, false, pg_sys::work_mem);
            (*result).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            (*result).setResult = store;
            (*result).setDesc = descriptor;
            pg_sys::MemoryContextSwitchTo(before);
            Ok(Rows { store, descriptor })
        }
    }

    /// Adds a row whose column `at` is a text of these bytes, in the database's encoding. All other
    /// columns are of types that are passed by value. The text's copy is freed at once, so that a
    /// large set takes no memory beside its store.
    pub fn put_with_text<const COLUMNS: usize>(
        &mut self,
        mut columns: [Option<pg_sys::Datum>; COLUMNS],
        at: usize,
        bytes: &[u8],
    ) -> Outcome<()> {
        let length = i32::try_from(bytes.len()).map_err(internal)?;
        // SAFETY: cstring_to_text_with_len copies `length` bytes. The number of columns is checked
        // against the descriptor; the caller passes values of the types that the SQL script
        // declares.
        unsafe {
            if COLUMNS != (*self.descriptor).natts as usize || at >= COLUMNS {
                return Err(internal("a row has the wrong number of columns"));
            }
            let text = pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), length);
            columns[at] = Some(pg_sys::Datum::from(text));
            let mut nulls = columns.map(|column| column.is_none());
            let mut values = columns.map(|column| column.unwrap_or(pg_sys::Datum::null()));
            pg_sys::tuplestore_putvalues(
                self.store,
                self.descriptor,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            pg_sys::pfree(text.cast());
        }
        Ok(())
    }
}
