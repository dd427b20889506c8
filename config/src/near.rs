//! "Did you mean": the known key that is spelled most like an unknown one.

/// The candidate nearest to `word`, unless none is near.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(MAX_LENGTH).collect();
    let allowed = (word.len() / 3).max(2);
    candidates
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Longer words than any key has are cut before they are compared.
const MAX_LENGTH: usize = 64;

/// How many letters must be changed, added, left out, or swapped with their neighbour.
fn distance(word: &[char], other: &str) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in word.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, wanted) in other.iter().enumerate() {
            let mut cost = (row[j] + usize::from(letter != wanted)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && word[i - 1] == *wanted && other[j - 1] == *letter {
                cost = cost.min(before[j - 1] + 1);
            }
            next.push(cost);
        }
        before = row;
        row = next;
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_finger_is_recognized_and_a_different_word_is_not() {
        let keys = ["server.name", "log.level", "log.format"];
        assert_eq!(nearest("sevrer.name", keys.into_iter()), Some("server.name"));
        assert_eq!(nearest("log.levle", keys.into_iter()), Some("log.level"));
        assert_eq!(nearest("media.max_upload_bytes", keys.into_iter()), None);
        assert_eq!(nearest("", keys.into_iter()), None);
    }
}
