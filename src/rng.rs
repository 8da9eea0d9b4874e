//! Named random streams: randomness is passed in, never ambient.
//!
//! A stream is a function of (seed, purpose, numbers) alone, so the same sample is augmented in the same way by
//! any thread, in any order and after any interruption, and a parameter starts from the same values whatever
//! other parameters a network has.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The generator for one `purpose`, told apart by two `numbers` (an epoch and a sample, for example).
pub fn stream(seed: u64, purpose: &str, numbers: [u64; 2]) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    for (slot, word) in key.chunks_exact_mut(8).zip([seed, fnv1a(purpose.as_bytes()), numbers[0], numbers[1]])
    {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The 64-bit FNV-1a hash: short, stable over versions and platforms. Not for secrets.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn streams_repeat_and_differ_by_every_part_of_their_name() {
        let draw = |seed, purpose, numbers| stream(seed, purpose, numbers).random::<u64>();
        let base = draw(1, "augment", [2, 3]);
        assert_eq!(base, draw(1, "augment", [2, 3]));
        for other in [
            draw(0, "augment", [2, 3]),
            draw(1, "order", [2, 3]),
            draw(1, "augment", [0, 3]),
            draw(1, "augment", [2, 0]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn values_are_the_same_on_every_platform_and_version() {
        assert_eq!(fnv1a(b"senet"), 0xb95c_6830_5086_0998);
        // ChaCha with 8 rounds, as a second implementation (of the round function of RFC 8439) computes it: a checkpoint
        // stores no state of a generator, so a run resumes exactly only while these stay.
        let mut stream = stream(7, "augment", [3, 11]);
        let draws: [u64; 3] = std::array::from_fn(|_| stream.random());
        assert_eq!(draws, [6_026_631_250_993_546_691, 5_311_387_484_442_712_592, 7_801_378_116_842_320_797]);
        assert_eq!(stream.random::<f32>(), 14_194_863.0 / 16_777_216.0);
        assert_eq!(stream.random::<f64>(), 0.085_832_047_712_783_97);
        assert_eq!(stream.random_range(0..1000u32), 392);
    }
}
