//! Which queues of a level a flow may wait in: a hand of cards, dealt by the hash of the flow (upstream: apiserver
//! `pkg/util/shufflesharding/shufflesharding.go`). Two flows have all their queues in common only by rare chance.

/// Deals `hand_size` different cards of a deck of `deck_size`.
pub(super) fn deal(hash: u64, deck_size: u32, hand_size: u32) -> Vec<u32> {
    let mut hash = hash;
    let mut hand: Vec<u32> = Vec::with_capacity(hand_size as usize);
    for dealt in 0..hand_size.min(deck_size) {
        let left = u64::from(deck_size - dealt);
        // Below `deck_size`, so it fits.
        let mut card = (hash % left) as u32;
        hash /= left;
        // The place among the cards that are left becomes the place in the whole deck.
        let at = hand.iter().position(|taken| {
            let free = card < *taken;
            card += u32::from(!free);
            free
        });
        hand.insert(at.unwrap_or(hand.len()), card);
    }
    hand
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands() {
        for (hash, deck, size, expect) in [
            (0, 10, 3, vec![0, 1, 2]),
            (9, 10, 1, vec![9]),
            (10 * 9 * 8 - 1, 10, 3, vec![7, 8, 9]),
            (5, 1, 1, vec![0]),
            (7, 3, 5, vec![0, 1, 2]),
        ] {
            assert_eq!(deal(hash, deck, size), expect, "{hash} {deck} {size}");
        }
        // Every hand is dealt by as many hashes as any other.
        let mut counts = std::collections::HashMap::new();
        for hash in 0..(6 * 5 * 4) {
            *counts.entry(deal(hash, 6, 3)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 20);
        assert!(counts.values().all(|count| *count == 6), "{counts:?}");
    }
}
