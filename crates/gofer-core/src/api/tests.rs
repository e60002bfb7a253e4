//! Methods that are called as if the server had not authenticated anyone.
#![allow(clippy::unwrap_used)]

use gofer_proto::embedded::ListExtensionStatesRequest;
use gofer_proto::embedded::embedded_core_server::EmbeddedCore;
use tonic::Code;

use super::*;
use crate::Core;

async fn api() -> Api {
    let core = Core::in_memory().await.unwrap();
    let (store, extensions) = (Arc::clone(core.store()), Arc::clone(&core.inner.extensions));
    let tokens = TokenTable::new(Arc::clone(&store), Arc::clone(&extensions));
    Api::new(store, extensions, tokens, Allowed::default())
}

/// Calls a method of a trait with an empty request.
macro_rules! call {
    ($api:expr, $service:ident::$method:ident($request:ty)) => {
        $service::$method($api, Request::new(<$request>::default())).await
    };
}

#[tokio::test]
async fn a_call_that_was_not_authenticated_is_refused() {
    let api = &api().await;
    let outcomes = [
        // One of each kind: immediate, awaited, streaming, and the core's own.
        call!(api, Gofer::list_runs(proto::ListRunsRequest)).err(),
        call!(api, Gofer::list_namespaces(proto::ListNamespacesRequest)).err(),
        call!(api, Gofer::install_extension(proto::InstallExtensionRequest)).err(),
        call!(api, Gofer::list_events(proto::ListEventsRequest)).err(),
        call!(api, EmbeddedCore::list_extension_states(ListExtensionStatesRequest)).err(),
    ];
    for outcome in outcomes {
        assert_eq!(outcome.unwrap().code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn open_methods_require_no_authentication() {
    let api = &api().await;
    call!(api, Gofer::get_system_info(proto::GetSystemInfoRequest)).unwrap();
    // Refused, but not for want of a token.
    let refused = call!(api, Gofer::bootstrap_token(proto::BootstrapTokenRequest)).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}
