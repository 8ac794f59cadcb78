//! The archived tapes: each has the digest that the manifest promises, and its header makes it again.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::support::good;

#[derive(Deserialize)]
struct Promise {
    requests: u64,
    workload_digest: String,
}

#[test]
fn every_archived_tape_is_what_the_manifest_promises() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    let manifest = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let promises: BTreeMap<String, Promise> = serde_json::from_str(&manifest).unwrap();
    assert!(!promises.is_empty());
    for (name, promise) in promises {
        let tape = folder.join(&name);
        let said = good(["verify", tape.to_str().unwrap(), "--regenerate"]);
        let expected = format!(
            "ok: {} requests, digest {}; its header makes it again\n",
            promise.requests, promise.workload_digest
        );
        assert_eq!(said, expected, "{name}");
    }
}
