//! "Did you mean …": the nearest known word to one that is unknown.

use std::fmt::Display;

/// Longest word that is compared, in bytes: the distance takes quadratic time.
const MAX_WORD_BYTES: usize = 128;

/// The candidate nearest to `word`, when it is near enough to be a slip of the finger: at most a third
/// of the letters differ (optimal string alignment distance, so that a swap of neighbours counts once).
pub fn closest<'a, T: Display + ?Sized + 'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a T>,
) -> Option<String> {
    if word.len() > MAX_WORD_BYTES {
        return None;
    }
    candidates
        .into_iter()
        .map(ToString::to_string)
        .filter(|candidate| candidate.len() <= MAX_WORD_BYTES)
        .map(|candidate| (distance(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(d, candidate)| *d <= (candidate.chars().count() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// A remedy that names the closest candidate, or lists them all when there are few.
pub fn remedy<'a, T: Display + ?Sized + 'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a T> + Clone,
) -> Option<String> {
    /// More than these are no help in one line.
    const MAX_LISTED: usize = 8;
    if let Some(near) = closest(word, candidates.clone()) {
        return Some(format!("did you mean {near}?"));
    }
    let all: Vec<_> = candidates.into_iter().take(MAX_LISTED + 1).map(ToString::to_string).collect();
    (1..=MAX_LISTED).contains(&all.len()).then(|| format!("known: {}", all.join(", ")))
}

fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["server", "client", "voting-backend"];
        assert_eq!(closest("sever", known).as_deref(), Some("server"));
        assert_eq!(closest("voting-bakcend", known).as_deref(), Some("voting-backend"));
        assert_eq!(closest("publisher", known), None);
        assert_eq!(remedy("x", known).as_deref(), Some("known: server, client, voting-backend"));
        assert_eq!(distance("ab", "ba"), 1);
    }
}
