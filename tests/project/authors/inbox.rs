use gofer_sdk::{
    Extension, ExternalEvent, Gofer, Result, Run, Secret, Subscription, Subscriptions,
};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Config {
    /// The secret with which senders sign, as HMAC-SHA256 in `X-Signature`.
    secret: Secret,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Params {
    /// The topic whose messages run the pipeline.
    topic: String,
}

#[derive(serde::Deserialize)]
struct Message {
    id: String,
    topic: String,
}

struct Inbox(Config);

impl Extension for Inbox {
    type Config = Config;
    type Params = Params;

    async fn init(config: Config, _: Gofer) -> Result<Self> {
        Ok(Self(config))
    }

    async fn external_event(
        &self,
        event: ExternalEvent,
        subscriptions: Subscriptions<Params>,
    ) -> Result<()> {
        event.verify_hmac_sha256("X-Signature", &self.0.secret)?;
        let message: Message = event.json()?;
        let run = || Run::because("a message").key(&message.id);
        let is_for = |it: &Subscription<Params>| it.params().topic == message.topic;
        subscriptions.start_runs(|it| is_for(it).then(run)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Inbox;
    use gofer_core::Core;
    use gofer_sdk::{ErrorKind, Result};

    const BODY: &str = r#"{"id":"41","topic":"push"}"#;
    /// Made with `printf … | openssl dgst -sha256 -hmac hunter2`.
    const SIGNED: &str = "910a7d3bdca64750505041585db8a31bed5ab5f7dc19314b13aac4e459c3c160";

    #[tokio::test(start_paused = true)]
    async fn a_message_runs_the_pipelines_of_its_topic_once() -> Result<()> {
        let gofer = Core::in_memory().await?;
        let inbox = gofer.install::<Inbox>("inbox", [("secret", "hunter2")]).await?;
        inbox.subscribe("ops/deploy", "x", [("topic", "push")]).await?;
        inbox.subscribe("ops/other", "x", [("topic", "pull")]).await?;
        for _ in 0..3 {
            inbox.post([("X-Signature", SIGNED)], BODY).await?;
            inbox.restart().await?;
        }
        gofer.wait_for_runs("ops/deploy", 1).await?;
        assert_eq!((gofer.runs("ops/deploy").len(), gofer.runs("ops/other").len()), (1, 0));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_signed_or_no_message_is_refused() -> Result<()> {
        let gofer = Core::in_memory().await?;
        let inbox = gofer.install::<Inbox>("inbox", [("secret", "hunter2")]).await?;
        let forged = inbox.post([("X-Signature", SIGNED)], "{}").await.unwrap_err();
        assert_eq!(forged.kind(), ErrorKind::PermissionDenied);
        Ok(())
    }
}
