//! Every sample graph that is shipped can be read and applied.

use std::{fs, path::Path};

use selvedge_fabric::{manifest, object::Kind};

use crate::support::Fabric;

fn sample(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/graphs").join(file);
    fs::read_to_string(path).expect("a sample")
}

#[test]
fn the_reference_applications_are_as_documented() {
    let mut fabric = Fabric::new();
    for (file, contracts, services) in [("voting-app.yaml", 6, 6), ("getaway-app.yaml", 4, 5)] {
        let objects = manifest::parse(&sample(file), Some(file)).expect("valid");
        let count = |kind| objects.iter().filter(|object| object.key.kind == kind).count();
        assert_eq!((count(Kind::Contract), count(Kind::Service)), (contracts, services), "{file}");
        fabric.set(objects).expect("applied");
    }
    assert_eq!(fabric.state.identities.len(), 11, "the two http-proxies are two services");
}

#[test]
fn every_sample_is_applied() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/graphs");
    for entry in fs::read_dir(directory).expect("the samples") {
        let file = entry.expect("an entry").file_name().into_string().expect("a name");
        let mut fabric = Fabric::new();
        if let Err(problems) = fabric.yaml(&sample(&file)) {
            panic!("{file}:\n{problems}");
        }
    }
}

/// Nodes of different versions compare hashes: a change of the encoding is a change of the protocol, and
/// raises the tags in `policy/hash.rs`.
#[test]
fn the_encoding_that_is_hashed_is_pinned() {
    let mut fabric = Fabric::new();
    fabric.yaml(&sample("voting-app.yaml")).expect("applied");
    assert_eq!(fabric.state.objects_hash().to_string(), "UaktOWOwuV4-X2eA1CbiWteBHOFJtv9SKvWbNmsn7c4");
    assert_eq!(fabric.state.intent_hash().to_string(), "U6txJ8NHGBDLxtax4tGknn8BypienPe61mdEzXWDv3U");
}
