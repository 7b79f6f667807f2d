//! Recognizes the vectors that this backend's model made a short while ago.

use std::hash::{BuildHasher, Hasher, RandomState};

use lru::LruCache;

/// The most pairs of text and vector, about 60 bytes each. One call of `embed(text[])` embeds 2,048
/// texts at a time.
const PAIRS: usize = 4096;

/// Of a longer text, only the beginning and the length are compared: reading all of it would take
/// longer than the model.
const BEGINNING: usize = 64 << 10;

/// Hashes of the last pairs. With it, the trigger tells `set embedding = embed(content)` from a
/// vector of unknown origin without running the model. The memo would not do: it can be switched
/// off, and has no long texts.
pub struct Recent {
    pairs: LruCache<u64, ()>,
    /// With a random key, so that nobody can search for a vector of the same hash.
    keys: RandomState,
}

impl Recent {
    pub fn new() -> Recent {
        Recent { pairs: LruCache::unbounded(), keys: RandomState::new() }
    }

    /// The model made `vector` from `text`.
    pub fn remember(&mut self, text: &str, vector: impl Iterator<Item = f32>) {
        let pair = self.pair(text, vector);
        self.pairs.put(pair, ());
        if self.pairs.len() > PAIRS {
            self.pairs.pop_lru();
        }
    }

    /// Whether [`Recent::remember`] was called for the pair.
    pub fn knows(&self, text: &str, vector: impl Iterator<Item = f32>) -> bool {
        self.pairs.contains(&self.pair(text, vector))
    }

    fn pair(&self, text: &str, vector: impl Iterator<Item = f32>) -> u64 {
        let mut hasher = self.keys.build_hasher();
        let bytes = text.as_bytes();
        hasher.write_usize(bytes.len());
        hasher.write(&bytes[..bytes.len().min(BEGINNING)]);
        for element in vector {
            hasher.write_u32(element.to_bits());
        }
        hasher.finish()
    }
}
