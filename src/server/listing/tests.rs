use prost::Message as _;

use super::*;
use gofer_proto::ExtensionInfoResponse;

fn key(pipeline: &str) -> Key {
    Key::new("default", pipeline, "label").unwrap()
}

fn read(snapshot: &Snapshot) -> Vec<String> {
    ExtensionInfoResponse::decode(snapshot.encoded.as_slice()).unwrap().registered
}

#[test]
fn what_is_added_is_listed_and_what_ended_is_not() {
    let mut listing = Listing::new(1000);
    let keys = [key("one"), key("two"), key(&"long".repeat(40))];
    for key in &keys {
        listing.add(key);
    }
    let snapshot = listing.snapshot(std::iter::empty());
    assert_eq!(read(&snapshot), keys.each_ref().map(Key::path));
    listing.invalidate();
    // Added while it is stale: the rebuild includes it.
    listing.add(&keys[0]);
    assert_eq!(read(&listing.snapshot(keys[..2].iter())), ["default/one", "default/two"]);
    listing.add(&keys[2]);
    assert_eq!(listing.snapshot(std::iter::empty()).listed, 3);
    assert_eq!(read(&snapshot).len(), 3, "an answer that is being sent is not changed");
}

#[test]
fn what_does_not_fit_is_omitted() {
    // Tag, length, and eleven bytes of text.
    let mut listing = Listing::new(2 * 13 + 12);
    for pipeline in ["one", "two", "six"] {
        listing.add(&key(pipeline));
    }
    // A shorter one still fits.
    listing.add(&key("xx"));
    let snapshot = listing.snapshot(std::iter::empty());
    assert_eq!(read(&snapshot), ["default/one", "default/two", "default/xx"]);
    assert_eq!((snapshot.listed, snapshot.omitted), (3, 1));
}
