//! Whether this CPU and this Linux kernel support the tiles.

#![allow(unsafe_code)]

use std::arch::x86_64::{__cpuid, __cpuid_count};

/// Whether the CPU and the Linux kernel support the tiles, in the size that this code uses.
pub(in crate::forward) fn available() -> bool {
    const TILES_AND_BF16: u32 = 1 << 24 | 1 << 22;
    if __cpuid(0).eax < 0x1d || __cpuid_count(7, 0).edx & TILES_AND_BF16 != TILES_AND_BF16 {
        return false;
    }
    let palette = __cpuid_count(0x1d, 1);
    let (row_bytes, names, rows) = (palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff);
    (row_bytes, names, rows) == (64, 8, 16) && kernel::keeps_tiles()
}

/// Asks the Linux kernel to save the tiles' 8 kB for this process and its child processes. It is
/// called only when these kernels are chosen, because the process then needs larger alternate
/// signal stacks. Linux refuses the request of a process with a small one.
pub(in crate::forward) fn permitted() -> bool {
    kernel::permits_tiles()
}

/// The numbers are from Linux's `Documentation/arch/x86/xstate.rst`.
#[cfg(target_os = "linux")]
mod kernel {
    const ARCH_GET_XCOMP_SUPP: libc::c_int = 0x1021;
    const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
    /// Feature numbers of the tiles' configuration and of the tiles' data.
    const CONFIGURATION: u64 = 17;
    const DATA: u64 = 18;

    pub fn keeps_tiles() -> bool {
        let mut features = 0_u64;
        let mask = &raw mut features;
        // SAFETY: it writes the mask of features to `mask`; a Linux kernel without this call
        // returns an error.
        let status = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_GET_XCOMP_SUPP, mask) };
        status == 0 && features >> CONFIGURATION & 1 == 1 && features >> DATA & 1 == 1
    }

    pub fn permits_tiles() -> bool {
        // SAFETY: this call takes no pointer.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, DATA) == 0 }
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    pub fn keeps_tiles() -> bool {
        false
    }

    pub fn permits_tiles() -> bool {
        false
    }
}
