//! What a placement of voters survives, said honestly.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_fabric::id::{Name, NodeName};

/// One voter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Its name.
    pub name: NodeName,
    /// Its cloud, when known.
    pub cloud: Option<Name>,
    /// Whether it lives now.
    pub live: bool,
}

/// What may be lost from now on without losing the quorum, clouds first. Voters that are dead already
/// are lost already.
#[must_use]
pub fn survives(seats: &[Seat]) -> Vec<String> {
    let live = seats.iter().filter(|seat| seat.live).count();
    let need = seats.len() / 2 + 1;
    let mut lines = Vec::new();
    if live < need || seats.is_empty() {
        return lines;
    }
    let spare = live - need;
    let by_cloud = live_by_cloud(seats);
    if by_cloud.len() > 1 {
        lines.extend(clouds_line(&by_cloud, spare));
    }
    if spare > 0 {
        let names = join(seats.iter().filter(|s| s.live).map(|s| s.name.as_str()));
        lines.push(format!("any {} of {names}", number(spare)));
    }
    lines
}

/// The clouds of which any `n` may vanish together, or those of which one may.
fn clouds_line(by_cloud: &BTreeMap<&Name, usize>, spare: usize) -> Option<String> {
    let mut sizes: Vec<usize> = by_cloud.values().copied().collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let together = sizes.iter().scan(0, |sum, size| {
        *sum += size;
        Some(*sum)
    });
    match together.take_while(|lost| *lost <= spare).count() {
        0 => {
            let small = by_cloud.iter().filter(|(_, size)| **size <= spare).map(|(cloud, _)| cloud.as_str());
            let names = join(small);
            (!names.is_empty()).then(|| format!("only {names}"))
        }
        n => Some(format!("any {} of {}", number(n), join(by_cloud.keys().map(|cloud| cloud.as_str())))),
    }
}

fn live_by_cloud(seats: &[Seat]) -> BTreeMap<&Name, usize> {
    let mut by_cloud = BTreeMap::new();
    for cloud in seats.iter().filter(|s| s.live).filter_map(|s| s.cloud.as_ref()) {
        *by_cloud.entry(cloud).or_insert(0) += 1;
    }
    by_cloud
}

/// What people should know about the placement, if it is not what it seems.
#[must_use]
pub fn warning(seats: &[Seat]) -> Option<String> {
    let clouds: BTreeSet<&Name> = seats.iter().filter_map(|seat| seat.cloud.as_ref()).collect();
    let need = seats.len() / 2 + 1;
    let dead: Vec<_> = seats.iter().filter(|s| !s.live).map(|s| s.name.as_str()).collect();
    if !seats.is_empty() && seats.len() - dead.len() < need {
        return Some(format!(
            "no quorum: {} of {} voters answer; missing: {}",
            seats.len() - dead.len(),
            seats.len(),
            dead.join(", ")
        ));
    }
    match clouds.len() {
        _ if seats.len() == 1 => {
            Some("one voter only: its loss stops changes of intent; add processors, best in two more clouds".to_owned())
        }
        0 | 1 => Some("all voters are in one cloud: its loss stops changes of intent; add processors in two more clouds".to_owned()),
        2 => Some(
            "two clouds are not cloud-tolerant: one of them holds the majority of the voters; add a small processor (a \
             witness) in a third cloud"
                .to_owned(),
        ),
        _ if !dead.is_empty() => Some(format!("voters that do not answer: {}", dead.join(", "))),
        _ => None,
    }
}

fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn number(n: usize) -> String {
    ["zero", "one", "two", "three"].get(n).map_or_else(|| n.to_string(), |word| (*word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(spec: &[(&str, &str, bool)]) -> Vec<Seat> {
        let name = |text| Name::new(text).expect("a name");
        spec.iter().map(|(n, c, live)| Seat { name: name(n), cloud: Some(name(c)), live: *live }).collect()
    }

    #[test]
    fn three_clouds_survive_any_one() {
        let three = seats(&[("a", "aws", true), ("b", "azr", true), ("c", "gcp", true)]);
        assert_eq!(survives(&three), ["any one of aws, azr, gcp", "any one of a, b, c"]);
        assert_eq!(warning(&three), None);
    }

    #[test]
    fn a_dead_voter_is_a_loss_already() {
        let two_left = seats(&[("a", "aws", false), ("b", "azr", true), ("c", "gcp", true)]);
        assert!(survives(&two_left).is_empty());
        assert_eq!(warning(&two_left).as_deref(), Some("voters that do not answer: a"));
        let one_left = seats(&[("a", "aws", false), ("b", "azr", false), ("c", "gcp", true)]);
        assert!(warning(&one_left).is_some_and(|w| w.contains("missing: a, b")));
    }

    #[test]
    fn two_clouds_are_not_called_cloud_tolerant() {
        let two = seats(&[("a", "aws", true), ("b", "aws", true), ("c", "gcp", true)]);
        assert_eq!(survives(&two), ["only gcp", "any one of a, b, c"]);
        assert!(warning(&two).is_some_and(|w| w.contains("not cloud-tolerant")));
    }

    #[test]
    fn five_clouds_survive_any_two() {
        let five = seats(&[
            ("a", "c1", true),
            ("b", "c2", true),
            ("c", "c3", true),
            ("d", "c4", true),
            ("e", "c5", true),
        ]);
        assert_eq!(survives(&five)[0], "any two of c1, c2, c3, c4, c5");
    }
}
