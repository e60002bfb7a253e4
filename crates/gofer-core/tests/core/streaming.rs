//! The transport must know which methods respond with a stream: it buffers all other responses, and
//! gives their calls a deadline. The server must know whose requests are streams: the message of any
//! other has to arrive in time.

use std::collections::BTreeSet;

use gofer_net::{STREAMING, STREAMS_REQUESTS};
use protox::prost_reflect::{DescriptorPool, MethodDescriptor};

#[test]
fn the_transport_knows_all_methods_that_respond_with_a_stream() {
    let streaming = methods(MethodDescriptor::is_server_streaming);
    assert_eq!(streaming, BTreeSet::from(STREAMING.map(str::to_owned)));
}

#[test]
fn the_server_knows_all_methods_whose_request_is_a_stream() {
    let mut streaming = methods(MethodDescriptor::is_client_streaming);
    // Not in Gofer's contract.
    streaming.insert("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned());
    assert_eq!(streaming, BTreeSet::from(STREAMS_REQUESTS.map(str::to_owned)));
}

/// The paths of the methods of which this is true.
fn methods(is: fn(&MethodDescriptor) -> bool) -> BTreeSet<String> {
    let gofer = DescriptorPool::decode(gofer_proto::FILE_DESCRIPTOR_SET).unwrap();
    let embedded = crate::authorization::embedded();
    let services = gofer.services().chain(embedded.services());
    services
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .filter(is)
        .map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name()))
        .collect()
}
