//! Whether Gofer is about to refuse a change of a live subscription.
//!
//! An embedded core ends a subscription before it begins it with other parameters. A full Gofer tells
//! the extension, and then refuses what it has stored already: until the extension restarts, it would
//! run with parameters that Gofer does not have. So Gofer is asked what it has.

use std::time::Duration;

use super::references::is_reference;
use crate::error::{Error, ErrorKind};
use crate::extension::{Live, Settings};

/// For a question to Gofer, during which a caller waits.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The refusal, if Gofer has stored the subscription as it is and not as it would be.
pub(super) async fn check_change(current: &Live, new: &Settings) -> Result<(), Error> {
    let key = &current.key;
    let names = [key.namespace(), key.pipeline(), key.label()];
    let question = Box::pin(current.context.gofer.stored_settings(names));
    match tokio::time::timeout(TIMEOUT, question).await {
        Ok(Ok(Some(stored))) => {
            let stored = Settings::new(stored);
            if may_be(&stored, &current.settings) && !may_be(&stored, new) {
                return Err(Error::new(
                    ErrorKind::AlreadyExists,
                    "the pipeline is subscribed under this label with other parameters, which Gofer \
                     keeps; delete that subscription first",
                ));
            }
        }
        Ok(Ok(None)) => {}
        Ok(Err(_)) | Err(_) => key.span().in_scope(|| {
            tracing::warn!(
                "the parameters are changed, and Gofer does not say whether it has stored that; if \
                 it has not, the earlier ones are in effect after the next start"
            );
        }),
    }
    Ok(())
}

/// Whether these settings may be the stored ones, resolved.
fn may_be(stored: &Settings, settings: &Settings) -> bool {
    let mut settings = settings.iter();
    let all = stored.iter().all(|(key, value)| {
        settings.next().is_some_and(|(other, resolved)| {
            key.eq_ignore_ascii_case(other) && (value == resolved || is_reference(value))
        })
    });
    all && settings.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_may_be_stored_ones_if_all_but_references_are_equal() {
        let of = |settings: &[(&str, &str)]| Settings::new(settings.iter().copied());
        let stored = of(&[("every", "5m"), ("Token", "global_secret{{ t }}")]);
        assert!(may_be(&stored, &of(&[("EVERY", "5m"), ("token", "hunter2")])));
        for other in [
            of(&[]),
            of(&[("every", "5m")]),
            of(&[("every", "6m"), ("token", "hunter2")]),
            of(&[("every", "5m"), ("token", "hunter2"), ("volume", "low")]),
            of(&[("each", "5m"), ("token", "hunter2")]),
        ] {
            assert!(!may_be(&stored, &other));
        }
    }
}
