//! Postgres's lists of pointers.

#![allow(unsafe_code)]

use pgrx::pg_sys;

/// The elements of a list of pointers to `T`; none if it is null.
///
/// # Safety
/// `list` must be null or a valid list of such pointers, and stay unchanged while the result is
/// used.
pub unsafe fn pointers<'l, T>(list: *mut pg_sys::List) -> impl Iterator<Item = *mut T> + 'l {
    // SAFETY: the caller guarantees the list. It has `length` cells from `elements` on, and each of
    // them holds a pointer.
    let cells: &'l [pg_sys::ListCell] = unsafe {
        if list.is_null() {
            &[]
        } else {
            let length = usize::try_from((*list).length).unwrap_or(0);
            std::slice::from_raw_parts((*list).elements, length)
        }
    };
    // SAFETY: as above.
    cells.iter().map(|cell| unsafe { cell.ptr_value.cast::<T>() })
}
