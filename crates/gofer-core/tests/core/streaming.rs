//! The transport must know which methods respond with a stream: it buffers all other responses, and
//! gives their calls a deadline.

use std::collections::BTreeSet;

use gofer_net::STREAMING;
use protox::prost_reflect::{DescriptorPool, MethodDescriptor};

#[test]
fn the_transport_knows_all_methods_that_respond_with_a_stream() {
    let pool = DescriptorPool::decode(gofer_proto::FILE_DESCRIPTOR_SET).unwrap();
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let streaming: BTreeSet<_> = methods
        .filter(MethodDescriptor::is_server_streaming)
        .map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name()))
        .collect();
    assert_eq!(streaming, BTreeSet::from(STREAMING.map(str::to_owned)));
}
