//! The last texts of a backend and their embeddings.

use std::rc::Rc;

use gte_engine::Embedding;
use lru::LruCache;

/// Most bytes the memo holds, texts and vectors together.
const MAX_BYTES: usize = 4 << 20;

/// A longer text is not remembered: a search string or an upsert's row is shorter, and one entry
/// must not push out all the others.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// Least recently used texts go first, by number and by bytes. It belongs to one loaded model and
/// is thrown away with it, so the text alone is the key.
pub struct Memo {
    entries: LruCache<Box<str>, Rc<Embedding>>,
    bytes: usize,
}

impl Memo {
    pub fn new() -> Memo {
        Memo { entries: LruCache::unbounded(), bytes: 0 }
    }

    /// Whether a text is small enough to be remembered.
    pub fn remembers(text: &str) -> bool {
        text.len() <= MAX_TEXT_BYTES
    }

    /// The embedding of a text seen lately.
    pub fn get(&mut self, text: &str) -> Option<Rc<Embedding>> {
        if Memo::remembers(text) { self.entries.get(text).cloned() } else { None }
    }

    /// Remembers a text, among at most `size`.
    pub fn put(&mut self, text: &str, embedding: Rc<Embedding>, size: usize) {
        if size == 0 || !Memo::remembers(text) {
            return;
        }
        self.bytes += cost(text);
        if let Some((old, _)) = self.entries.push(text.into(), embedding) {
            self.bytes -= cost(&old);
        }
        self.shrink_to(size);
    }

    /// Forgets what is beyond `size` texts or the limit of bytes.
    pub fn shrink_to(&mut self, size: usize) {
        while self.entries.len() > size || self.bytes > MAX_BYTES {
            match self.entries.pop_lru() {
                Some((old, _)) => self.bytes -= cost(&old),
                None => break,
            }
        }
    }
}

fn cost(text: &str) -> usize {
    text.len() + size_of::<Embedding>() + 64
}
