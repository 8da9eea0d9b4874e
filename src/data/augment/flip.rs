//! Mirroring.

/// Mirrors `pixels` (rows of `width` × `channels` bytes) left to right.
pub fn mirror(pixels: &mut [u8], width: usize, channels: usize) {
    for row in pixels.chunks_exact_mut(width * channels) {
        match channels {
            1 => row.reverse(),
            _ => row.as_chunks_mut::<3>().0.reverse(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirroring_twice_changes_nothing() {
        let original: Vec<u8> = (1..=9).collect();
        let mut pixels = original.clone();
        mirror(&mut pixels, 3, 3);
        assert_eq!(pixels, [7, 8, 9, 4, 5, 6, 1, 2, 3]);
        mirror(&mut pixels, 3, 3);
        assert_eq!(pixels, original);
    }
}
