//! Sharing one operation among threads of the current pool.
//!
//! How it is cut never changes a result: each output is computed whole by one thread.

#![allow(unsafe_code)]

use std::ops::Range;

use rayon::prelude::*;

use super::SCRATCH;
use super::kernels::{Attend, Linear, Norm, Scratch};
use super::tier::Tier;

/// From this many rows per thread on, rows are shared out; below, panels of the weights, because
/// then reading them is what takes the time.
const ROWS_PER_THREAD: usize = 32;

/// A job whose pointers may go to other threads of the pool.
#[derive(Clone)]
pub(super) struct Shared<T>(pub T);

// SAFETY: the jobs are made from borrows that outlive the operation, which waits for all of its
// parts; the parts write disjoint outputs.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above; through a shared reference a job is only cloned.
unsafe impl<T> Sync for Shared<T> {}

pub(super) fn linear(tier: Tier, job: Shared<Linear>, threads: usize) {
    if threads == 1 {
        // SAFETY: the caller made the job from slices of the right sizes, and the tier was
        // detected on this CPU.
        return with_scratch(|scratch| unsafe { (tier.linear)(&job.0, scratch) });
    }
    let by_rows = job.0.rows.len() >= threads * ROWS_PER_THREAD;
    let parts = if by_rows {
        split(job.0.rows.clone(), threads, tier.tile_rows)
    } else {
        split(job.0.panels.clone(), threads, 1)
    };
    parts.into_par_iter().with_max_len(1).for_each(|part| {
        let mut job = job.clone();
        if by_rows {
            job.0.rows = part;
        } else {
            job.0.panels = part;
        }
        // SAFETY: as above; the parts don't overlap.
        with_scratch(|scratch| unsafe { (tier.linear)(&job.0, scratch) })
    });
}

pub(super) fn attend(tier: Tier, jobs: Vec<Shared<Attend>>, threads: usize) {
    let run = |job: &Shared<Attend>| {
        // SAFETY: the caller made the job from slices of the right sizes, and the tier was
        // detected on this CPU; the heads of two parts don't overlap.
        with_scratch(|scratch| unsafe { (tier.attend)(&job.0, scratch) });
    };
    if threads == 1 {
        return jobs.iter().for_each(run);
    }
    let parts: Vec<Shared<Attend>> = jobs
        .iter()
        .flat_map(|job| {
            split(job.0.heads.clone(), threads, 1).into_iter().map(|heads| {
                let mut part = job.clone();
                part.0.heads = heads;
                part
            })
        })
        .collect();
    parts.par_iter().with_max_len(1).for_each(run);
}

pub(super) fn normalise(tier: Tier, job: Shared<Norm>, threads: usize) {
    if threads == 1 || job.0.rows.len() < threads * ROWS_PER_THREAD {
        // SAFETY: as in `linear`.
        return unsafe { (tier.normalise)(&job.0) };
    }
    split(job.0.rows.clone(), threads, 1).into_par_iter().with_max_len(1).for_each(|rows| {
        let mut job = job.clone();
        job.0.rows = rows;
        // SAFETY: as in `linear`; the parts don't overlap.
        unsafe { (tier.normalise)(&job.0) }
    });
}

fn with_scratch(run: impl FnOnce(&mut Scratch)) {
    SCRATCH.with_borrow_mut(run);
}

/// Cuts a range into at most `parts` ranges of about equal size, each but the last a multiple of
/// `unit`.
fn split(range: Range<usize>, parts: usize, unit: usize) -> Vec<Range<usize>> {
    let size = range.len().div_ceil(parts).next_multiple_of(unit).max(1);
    range.clone().step_by(size).map(|start| start..(start + size).min(range.end)).collect()
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn parts_cover_the_range_without_overlap() {
        for (length, parts, unit) in [(1, 2, 8), (12, 2, 8), (512, 2, 8), (513, 3, 8), (24, 5, 1)] {
            let ranges = split(0..length, parts, unit);
            assert!(ranges.len() <= parts);
            assert!(ranges.iter().flat_map(|range| range.clone()).eq(0..length));
            assert!(ranges[..ranges.len() - 1].iter().all(|range| range.len() % unit == 0));
        }
    }
}
