//! What each method does.

#![allow(
    clippy::trivially_copy_pass_by_ref,
    clippy::unnecessary_wraps,
    reason = "those that answer at once have one signature"
)]

use std::collections::BTreeSet;
use std::sync::Arc;

use gofer_proto as proto;
use gofer_proto::run::RunStatus;
use gofer_sdk::PipelineId;
use tokio::sync::mpsc;
use tonic::Status;

use super::super::serving::Messages;
use super::state::id_of;
use super::{Shared, Started};

/// The page of a list if a request does not limit it.
const DEFAULT_LIMIT: usize = 200;

type Answer<T> = Result<T, Status>;

pub(super) fn get_system_info(
    _: &Shared,
    _: &proto::GetSystemInfoRequest,
) -> Answer<proto::GetSystemInfoResponse> {
    let (commit, semver) = ("0000000".to_owned(), "0.6.2".to_owned());
    Ok(proto::GetSystemInfoResponse { commit, semver })
}

pub(super) fn get_namespace(
    shared: &Shared,
    request: &proto::GetNamespaceRequest,
) -> Answer<proto::GetNamespaceResponse> {
    let id = if request.id.is_empty() { "default" } else { &*request.id };
    let namespace = namespaces(shared).into_iter().find(|namespace| namespace.id == id);
    match namespace {
        Some(namespace) => Ok(proto::GetNamespaceResponse { namespace: Some(namespace) }),
        None => Err(shared.not_found("namespace")),
    }
}

pub(super) fn list_namespaces(
    shared: &Shared,
    request: &proto::ListNamespacesRequest,
) -> Answer<proto::ListNamespacesResponse> {
    let namespaces = page(namespaces(shared), request.offset, request.limit);
    Ok(proto::ListNamespacesResponse { namespaces })
}

/// `default`, and those of the pipelines.
fn namespaces(shared: &Shared) -> Vec<proto::Namespace> {
    let recorded = shared.recorded.borrow();
    let mut ids: BTreeSet<&str> = recorded.pipelines.keys().map(PipelineId::namespace).collect();
    ids.insert("default");
    let namespace = |id: &str| proto::Namespace {
        id: id.to_owned(),
        name: id.to_owned(),
        ..proto::Namespace::default()
    };
    ids.into_iter().map(namespace).collect()
}

pub(super) fn get_pipeline(
    shared: &Shared,
    request: &proto::GetPipelineRequest,
) -> Answer<proto::GetPipelineResponse> {
    let id = id_of(&request.namespace_id, &request.id);
    let recorded = shared.recorded.borrow();
    match recorded.pipelines.get(&id) {
        Some(stored) => Ok(proto::GetPipelineResponse {
            pipeline: Some(proto::Pipeline {
                metadata: Some(stored.metadata()),
                config: stored.settings.config(),
            }),
        }),
        None => Err(shared.not_found("pipeline")),
    }
}

pub(super) fn list_pipelines(
    shared: &Shared,
    request: &proto::ListPipelinesRequest,
) -> Answer<proto::ListPipelinesResponse> {
    // An empty name means `default`, as in the name of a pipeline.
    let namespace = id_of(&request.namespace_id, "");
    let recorded = shared.recorded.borrow();
    let of_namespace = recorded
        .pipelines
        .iter()
        .filter(|(id, _)| id.namespace() == namespace.namespace())
        .map(|(_, stored)| stored.metadata());
    let pipelines = page(of_namespace, request.offset, request.limit);
    Ok(proto::ListPipelinesResponse { pipelines })
}

pub(super) fn enable_pipeline(
    shared: &Shared,
    request: &proto::EnablePipelineRequest,
) -> Answer<proto::EnablePipelineResponse> {
    let found = shared.set_active(&id_of(&request.namespace_id, &request.id), true);
    found.map(|()| proto::EnablePipelineResponse {})
}

pub(super) fn disable_pipeline(
    shared: &Shared,
    request: &proto::DisablePipelineRequest,
) -> Answer<proto::DisablePipelineResponse> {
    let found = shared.set_active(&id_of(&request.namespace_id, &request.id), false);
    found.map(|()| proto::DisablePipelineResponse {})
}

pub(super) fn start_run(shared: &Arc<Shared>, request: proto::StartRunRequest) -> Answer<Started> {
    let mut variables: Vec<_> = request.variables.into_iter().collect();
    variables.sort_unstable();
    let variables = variables
        .into_iter()
        .map(|(key, value)| proto::Variable { key, value, source: String::new() })
        .collect();
    let id = id_of(&request.namespace_id, &request.pipeline_id);
    if request.initiator.as_ref().is_none_or(|initiator| initiator.name.is_empty()) {
        return Err(no_initiator());
    }
    shared.start_run(&id, request.initiator, variables)
}

fn no_initiator() -> Status {
    Status::failed_precondition("an initiator and its name are required")
}

/// Passes no initiator on, so it is refused like any other start without one, unless the test lets
/// it through.
pub(super) fn retry_run(shared: &Arc<Shared>, request: &proto::RetryRunRequest) -> Answer<Started> {
    let id = id_of(&request.namespace_id, &request.pipeline_id);
    let earlier = shared.recorded.borrow().run(id.clone(), request.run_id).cloned();
    match earlier {
        None => Err(shared.not_found("run")),
        Some(_) if !shared.lets_retries_through() => Err(no_initiator()),
        Some(earlier) => shared.start_run(&id, None, earlier.variables),
    }
}

pub(super) fn get_run(
    shared: &Shared,
    request: &proto::GetRunRequest,
) -> Answer<proto::GetRunResponse> {
    let id = id_of(&request.namespace_id, &request.pipeline_id);
    let run = shared.recorded.borrow().run(id, request.id).cloned();
    match run {
        Some(run) => Ok(proto::GetRunResponse { run: Some(run) }),
        None => Err(shared.not_found("run")),
    }
}

pub(super) fn list_runs(
    shared: &Shared,
    request: &proto::ListRunsRequest,
) -> Answer<proto::ListRunsResponse> {
    let id = id_of(&request.namespace_id, &request.pipeline_id);
    let recorded = shared.recorded.borrow();
    let runs = page(recorded.runs_of(id).rev(), request.offset, request.limit);
    Ok(proto::ListRunsResponse { runs: runs.into_iter().cloned().collect() })
}

pub(super) fn cancel_run(
    shared: &Shared,
    request: &proto::CancelRunRequest,
) -> Answer<proto::CancelRunResponse> {
    let id = id_of(&request.namespace_id, &request.pipeline_id);
    let exists = shared.recorded.borrow().run(id.clone(), request.run_id).is_some();
    shared.complete_run(&id, request.run_id, RunStatus::Cancelled);
    if exists { Ok(proto::CancelRunResponse {}) } else { Err(shared.not_found("run")) }
}

pub(super) fn get_subscription(
    shared: &Shared,
    request: &proto::GetPipelineExtensionSubscriptionRequest,
) -> Answer<proto::GetPipelineExtensionSubscriptionResponse> {
    let id = id_of(&request.namespace_id, &request.pipeline_id);
    let recorded = shared.recorded.borrow();
    let found = recorded.subscriptions.iter().find(|it| {
        id_of(&it.namespace, &it.pipeline) == id
            && it.name == request.extension_name
            && it.label == request.extension_label
    });
    let subscription = Some(found.ok_or_else(|| shared.not_found("subscription"))?.clone());
    Ok(proto::GetPipelineExtensionSubscriptionResponse { subscription })
}

pub(super) fn get_event(
    shared: &Shared,
    request: &proto::GetEventRequest,
) -> Answer<proto::GetEventResponse> {
    let place = usize::try_from(request.id).ok().and_then(|id| id.checked_sub(1));
    let recorded = shared.recorded.borrow();
    let event = place.and_then(|place| recorded.events.get(place).cloned());
    let event = event.filter(|event| !recorded.missing.contains(&event.id));
    match event {
        Some(event) => Ok(proto::GetEventResponse { event: Some(event) }),
        None => Err(shared.not_found("event")),
    }
}

/// Listens for live events first, and then reads the history to its end: what happens in between is
/// sent twice.
pub(super) fn list_events(
    shared: Arc<Shared>,
    request: proto::ListEventsRequest,
) -> Messages<proto::ListEventsResponse> {
    let live_from = shared.recorded.borrow().events.len();
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        // Ends when nobody reads any more.
        let _ = send_events(&shared, request, live_from, &sender).await;
    });
    Messages(receiver)
}

type Events = mpsc::Sender<proto::ListEventsResponse>;

async fn send_events(
    shared: &Shared,
    request: proto::ListEventsRequest,
    live_from: usize,
    sender: &Events,
) -> Result<(), mpsc::error::SendError<proto::ListEventsResponse>> {
    let send = async |place: usize| {
        let event = shared.recorded.borrow().events[place].clone();
        if shared.recorded.borrow().missing.contains(&event.id) {
            return Ok(());
        }
        sender.send(proto::ListEventsResponse { event: Some(event) }).await
    };
    if request.reverse {
        for place in (0..live_from).rev() {
            send(place).await?;
        }
    } else {
        for place in 0..live_from {
            send(place).await?;
        }
        shared.replays_go_on().await;
        let end = shared.recorded.borrow().events.len();
        for place in live_from..end {
            send(place).await?;
        }
    }
    if !request.follow {
        return Ok(());
    }
    let mut recorded = shared.recorded.subscribe();
    for place in live_from.. {
        tokio::select! {
            biased;
            _happened = recorded.wait_for(|recorded| recorded.events.len() > place) => {}
            () = sender.closed() => break,
        }
        send(place).await?;
    }
    Ok(())
}

pub(super) fn put_pipeline_object(
    shared: &Shared,
    request: &proto::PutPipelineObjectRequest,
) -> Answer<proto::PutPipelineObjectResponse> {
    let id = id_of(&request.namespace_id, &request.pipeline_id);
    let bytes = request.content.len().try_into().unwrap();
    let now = shared.now();
    shared.change(&id, |stored| {
        if stored.objects.contains_key(&request.key) && !request.force {
            return Err(Status::failed_precondition("the key exists already"));
        }
        stored.objects.insert(request.key.clone(), (request.content.clone(), now));
        Ok(proto::PutPipelineObjectResponse { bytes, ..Default::default() })
    })
}

pub(super) fn get_pipeline_object(
    shared: &Shared,
    request: &proto::GetPipelineObjectRequest,
) -> Answer<proto::GetPipelineObjectResponse> {
    let id = id_of(&request.namespace_id, &request.pipeline_id);
    let recorded = shared.recorded.borrow();
    let stored = recorded.pipelines.get(&id);
    match stored.and_then(|stored| stored.objects.get(&request.key)) {
        Some((content, _)) => Ok(proto::GetPipelineObjectResponse { content: content.clone() }),
        None => Err(shared.not_found("object")),
    }
}

pub(super) fn list_pipeline_objects(
    shared: &Shared,
    request: &proto::ListPipelineObjectsRequest,
) -> Answer<proto::ListPipelineObjectsResponse> {
    let id = id_of(&request.namespace_id, &request.pipeline_id);
    let recorded = shared.recorded.borrow();
    let objects = recorded.pipelines.get(&id).into_iter().flat_map(|stored| &stored.objects);
    let keys = objects
        .map(|(key, (_, created))| proto::ObjectStoreKey { key: key.clone(), created: *created })
        .collect();
    Ok(proto::ListPipelineObjectsResponse { keys })
}

pub(super) fn delete_pipeline_object(
    shared: &Shared,
    request: &proto::DeletePipelineObjectRequest,
) -> Answer<proto::DeletePipelineObjectResponse> {
    let id = id_of(&request.namespace_id, &request.pipeline_id);
    shared.change(&id, |stored| {
        stored.objects.remove(&request.key);
        Ok(proto::DeletePipelineObjectResponse {})
    })
}

/// A page of a list; a limit of 0 is the default one.
fn page<T>(all: impl IntoIterator<Item = T>, offset: i64, limit: i64) -> Vec<T> {
    let offset = usize::try_from(offset).unwrap_or(0);
    let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(DEFAULT_LIMIT);
    all.into_iter().skip(offset).take(limit).collect()
}
