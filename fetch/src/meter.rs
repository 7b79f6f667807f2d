//! Receives the progress of a download from hf-hub: draws a bar, reports activity, and stops a
//! download that is too large.

use std::cell::Cell;
use std::panic;

use hf_hub::api::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::published::PublishedFile;
use crate::watch::Activity;

/// Fewer bytes than this do not reset the stall timeout. Otherwise a hub that sends one byte a
/// second would keep the command running for two years.
const MIN_PROGRESS: u64 = 1024;

/// The download cannot become the pinned file. It is the payload of a panic, because hf-hub's
/// progress trait has no other way to stop a download; `hub` catches it.
#[derive(Clone, Copy, Debug)]
pub struct WrongSize {
    pub announced: u64,
}

/// Progress of one download.
pub struct Meter<'a> {
    file: &'a PublishedFile,
    activity: &'a Activity,
    /// Set to the size of the partial file that the download continues.
    resumed_from: &'a Cell<u64>,
    bar: ProgressBar,
    position: u64,
    unreported: u64,
    /// The first update after `init` is the position from which hf-hub resumes.
    at_start: bool,
}

impl<'a> Meter<'a> {
    pub fn new(
        file: &'a PublishedFile,
        activity: &'a Activity,
        resumed_from: &'a Cell<u64>,
    ) -> Self {
        // Nothing is drawn unless standard output is a terminal. Standard error is for errors.
        let bar = ProgressBar::with_draw_target(Some(file.size), ProgressDrawTarget::stdout())
            .with_message(file.name.clone());
        if let Ok(style) = ProgressStyle::with_template(
            "  {msg:25} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ) {
            bar.set_style(style);
        }
        resumed_from.set(0);
        Meter { file, activity, resumed_from, bar, position: 0, unreported: 0, at_start: true }
    }

    fn stop(&self, announced: u64) -> ! {
        self.bar.abandon();
        panic::resume_unwind(Box::new(WrongSize { announced }))
    }
}

impl Progress for Meter<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        if size as u64 != self.file.size {
            self.stop(size as u64);
        }
        self.at_start = true;
    }

    fn update(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        if self.at_start {
            self.at_start = false;
            self.resumed_from.set(bytes);
            self.position = bytes;
            self.bar.set_position(bytes);
            self.bar.reset_eta();
            return;
        }
        self.position += bytes;
        self.unreported += bytes;
        if self.unreported >= MIN_PROGRESS {
            self.unreported = 0;
            self.activity.data_arrived();
        }
        self.bar.set_position(self.position);
        // Otherwise an endless body would fill the disk before its hash is checked.
        if self.position > self.file.size {
            self.stop(self.position);
        }
    }

    fn finish(&mut self) {
        self.activity.data_arrived();
        self.bar.finish();
    }
}
