//! `gofer_sdk.embedded.ExtensionStatus`: when subscriptions last fired, when they will next, and what
//! went wrong. Not part of Gofer's contract; an embedded core asks for it.

use tonic::{Request, Response, Status, async_trait};

use super::service::Service;
use crate::error::{Error, ErrorKind, Result};
use crate::extension::{Key, LastError, Standing};
use gofer_proto::embedded::extension_status_server::ExtensionStatus;
use gofer_proto::embedded::{
    GetSubscriptionStatesRequest, GetSubscriptionStatesResponse, SubscriptionError,
    SubscriptionKey, SubscriptionState,
};

/// Keys of one call: the answer, with as many errors, stays below the usual limit of 4 MiB.
const MAX_KEYS: usize = 1000;

#[async_trait]
impl ExtensionStatus for Service {
    async fn get_subscription_states(
        &self,
        request: Request<GetSubscriptionStatesRequest>,
    ) -> Result<Response<GetSubscriptionStatesResponse>, Status> {
        let states = self.states(&request.into_inner().keys);
        let response = states.map(|states| GetSubscriptionStatesResponse { states });
        self.respond("GetSubscriptionStates", response)
    }
}

impl Service {
    fn states(&self, keys: &[SubscriptionKey]) -> Result<Vec<SubscriptionState>> {
        if keys.len() > MAX_KEYS {
            let why = format!("{} keys were given; at most {MAX_KEYS} are accepted", keys.len());
            return Err(Error::new(ErrorKind::InvalidParameter, why));
        }
        // Before Init there are none, which would look as if they had been lost.
        self.lifecycle.instance()?;
        keys.iter().map(|key| self.subscription_state(key)).collect()
    }

    fn subscription_state(&self, key: &SubscriptionKey) -> Result<SubscriptionState> {
        let SubscriptionKey { namespace_id, pipeline_id, label } = key;
        // What cannot be a key is none of a subscription.
        let Ok(key) = Key::new(namespace_id, pipeline_id, label) else {
            return Ok(SubscriptionState::default());
        };
        Ok(self.lifecycle.registry.standing(&key)?.map(state).unwrap_or_default())
    }
}

fn state(standing: Standing) -> SubscriptionState {
    let Standing { last_tick, next_tick, last_error, has_returned } = standing;
    SubscriptionState {
        found: true,
        has_returned,
        last_tick: last_tick.map(unix_millis),
        next_tick: next_tick.map(unix_millis),
        last_error: last_error.map(|LastError { message, at, is_waiting, restarts }| {
            let (at, restarts) = (unix_millis(at), restarts.into());
            SubscriptionError { message, at, is_waiting, restarts }
        }),
    }
}

fn unix_millis(unix_nanos: i64) -> i64 {
    unix_nanos.div_euclid(1_000_000)
}
