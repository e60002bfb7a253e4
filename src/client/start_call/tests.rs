use std::collections::HashMap;

use gofer_proto::StartRunRequest;

use super::*;
use crate::Run;
use crate::client::run::{Occurrence, RUN_KEY, SCHEDULED_AT, Scheduled};

#[test]
fn a_request_is_encoded_as_prost_decodes_it() {
    let scheduled =
        Scheduled { at: 1_700_000_000_000_000_000, occurrence: Occurrence::Only, max_lateness: 1 };
    for long in [0, 1, 80, 200, 40_000] {
        let value = "v".repeat(long);
        let run = Run::scheduled(value.clone().into(), scheduled)
            .variable("TWICE", "first")
            .variable("NAME", &value)
            .variable("TWICE", "second");
        let pipeline = PipelineRef { namespace: "ops", pipeline: "nightly" };
        let call = StartCall::new("cron", &value, pipeline, &run.keyed().unwrap());
        let request = StartRunRequest::decode(call.0.message()).unwrap();
        let variables = HashMap::from([
            ("TWICE", "second"),
            ("NAME", &value),
            (RUN_KEY, "gofer-sdk:tick:2023-11-14T22:13:20Z"),
            (SCHEDULED_AT, "2023-11-14T22:13:20Z"),
        ]);
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        let expected = StartRunRequest {
            namespace_id: "ops".into(),
            pipeline_id: "nightly".into(),
            variables: variables.collect(),
            initiator: Some(proto::Initiator {
                r#type: INITIATOR.into(),
                name: format!("cron ({value})"),
                reason: value,
            }),
        };
        assert_eq!(request, expected);
    }
}
