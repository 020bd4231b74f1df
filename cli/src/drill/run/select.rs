//! Which nodes and clouds a step means here and now. Pure.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail, ensure};
use selvedge_fabric::drill::Selector;

use crate::drill::ground::Site;

/// What there is to choose from.
pub(in crate::drill) struct Choice<'a> {
    pub(in crate::drill) nodes: &'a [Site],
    /// In the order of their numbers.
    pub(in crate::drill) clouds: &'a [String],
    pub(in crate::drill) leader: Option<&'a str>,
}

impl<'a> Choice<'a> {
    /// The nodes that a step means, each once, in the order of names.
    pub(in crate::drill) fn nodes(&self, wanted: &[Selector]) -> anyhow::Result<Vec<&'a Site>> {
        let mut names = BTreeSet::new();
        for selector in wanted {
            names.extend(self.named(selector)?);
        }
        let mut found: Vec<_> = self.nodes.iter().filter(|node| names.contains(node.name.as_str())).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        ensure!(!found.is_empty(), "{} means no node here", shown(wanted));
        Ok(found)
    }

    /// The clouds that each of the groups means; `others` are those that no group names.
    pub(in crate::drill) fn clouds(&self, groups: &[&[Selector]]) -> anyhow::Result<Vec<Vec<String>>> {
        let mut named = BTreeSet::new();
        for selector in groups.iter().copied().flatten().filter(|s| **s != Selector::Others) {
            named.insert(self.cloud(selector)?);
        }
        let mut found = Vec::new();
        for group in groups {
            let mut clouds = Vec::new();
            for selector in *group {
                match selector {
                    Selector::Others => {
                        clouds.extend(self.clouds.iter().filter(|c| !named.contains(*c)).cloned())
                    }
                    one => clouds.push(self.cloud(one)?),
                }
            }
            clouds.sort();
            clouds.dedup();
            ensure!(!clouds.is_empty(), "{} means no cloud here", shown(group));
            found.push(clouds);
        }
        Ok(found)
    }

    fn all(&self) -> impl Iterator<Item = &'a str> {
        self.nodes.iter().map(|node| node.name.as_str())
    }

    fn named(&self, selector: &Selector) -> anyhow::Result<Vec<&'a str>> {
        let of_cloud = |cloud: String| {
            let inside = self.nodes.iter().filter(|node| node.cloud() == cloud);
            inside.map(|node| node.name.as_str()).collect::<Vec<_>>()
        };
        Ok(match selector {
            Selector::All => self.all().collect(),
            Selector::Leader => vec![self.the_leader()?.name.as_str()],
            Selector::Node(name) => {
                let found = self.all().find(|known| *known == name.as_str());
                vec![found.with_context(|| format!("there is no node {name} here"))?]
            }
            Selector::NodeNumber(number) => {
                let mut names: Vec<_> = self.all().collect();
                names.sort_unstable();
                let found = names.get(*number as usize - 1).copied();
                vec![
                    found.with_context(|| {
                        format!("there is no node#{number}: {} nodes are here", names.len())
                    })?,
                ]
            }
            cloud => of_cloud(self.cloud(cloud)?),
        })
    }

    fn cloud(&self, selector: &Selector) -> anyhow::Result<String> {
        match selector {
            Selector::Cloud(name) => {
                let found = self.clouds.iter().find(|cloud| cloud.as_str() == name.as_str());
                let known = || format!("there is no cloud {name} here; there are {}", self.clouds.join(", "));
                found.cloned().with_context(known)
            }
            Selector::CloudNumber(number) => {
                let found = self.clouds.get(*number as usize - 1);
                let count = self.clouds.len();
                found.cloned().with_context(|| format!("there is no cloud#{number}: {count} clouds are here"))
            }
            Selector::LeaderCloud => Ok(self.the_leader()?.cloud().to_owned()),
            other => bail!("{other} is no cloud"),
        }
    }

    fn the_leader(&self) -> anyhow::Result<&'a Site> {
        let found = self.leader.and_then(|name| self.nodes.iter().find(|node| node.name == name));
        found.context("nobody is known to lead")
    }
}

fn shown(wanted: &[Selector]) -> String {
    wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::ground::tests::site as node;

    fn selectors(text: &str) -> Vec<Selector> {
        text.split(' ').map(|word| word.parse().expect("a selector")).collect()
    }

    #[test]
    fn words_mean_nodes() {
        let nodes = [node("b1", "b/east"), node("a1", "a"), node("a2", "a")];
        let clouds = ["b".to_owned(), "a".to_owned()];
        let choice = Choice { nodes: &nodes, clouds: &clouds, leader: Some("a2") };
        for (words, wanted) in [
            ("all", "a1 a2 b1"),
            ("leader", "a2"),
            ("cloud#1", "b1"),
            ("cloud#leader", "a1 a2"),
            ("leader cloud#1", "a2 b1"),
            ("node#3 node/a1 cloud/a", "a1 a2 b1"),
        ] {
            let found = choice.nodes(&selectors(words)).expect(words);
            let found: Vec<_> = found.iter().map(|node| node.name.as_str()).collect();
            assert_eq!(found.join(" "), wanted, "{words}");
        }
        for none in ["node/x", "node#4", "cloud#3", "cloud/x", "others"] {
            assert!(choice.nodes(&selectors(none)).is_err(), "{none}");
        }
        let headless = Choice { leader: None, ..choice };
        assert!(headless.nodes(&selectors("leader")).is_err());
    }

    #[test]
    fn groups_are_of_clouds() {
        let nodes = [node("a1", "a"), node("b1", "b"), node("c1", "c")];
        let clouds = ["a", "b", "c"].map(str::to_owned);
        let choice = Choice { nodes: &nodes, clouds: &clouds, leader: Some("b1") };
        let (one, others) = (selectors("cloud#leader"), selectors("others"));
        assert_eq!(choice.clouds(&[&one, &others]).expect("two"), [vec!["b"], vec!["a", "c"]]);
        let all = selectors("cloud#1 cloud#2 cloud#3");
        assert!(choice.clouds(&[&all, &others]).is_err());
    }
}
