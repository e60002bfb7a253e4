// What the examples in the documentation of `src` run against, as an `include!`.

/// An embedded core with an extension whose `serve` or `install` is a function of the example, and
/// the pipeline `ops/nightly` subscribed to it.
#[allow(unused_macros)]
macro_rules! documented {
    ($($method:ident: $function:path),*) => {{
        struct Documented;

        impl gofer_sdk::Extension for Documented {
            type Config = gofer_sdk::NoConfig;
            type Params = gofer_sdk::NoParams;

            async fn init(_: Self::Config, _: gofer_sdk::Gofer) -> gofer_sdk::Result<Self> {
                Ok(Self)
            }

            $(documented!(@ $method $function);)*
        }

        let core = gofer_core::Core::in_memory().await?;
        let docs = core.install::<Documented>("docs", gofer_core::NO_SETTINGS).await?;
        docs.subscribe("ops/nightly", "docs", gofer_core::NO_SETTINGS).await?;
        (core, docs, std::marker::PhantomData::<Documented>)
    }};
    (@ serve $function:path) => {
        async fn serve(
            &self,
            subscription: gofer_sdk::Subscription<gofer_sdk::NoParams>,
        ) -> gofer_sdk::Result<()> {
            $function(subscription).await
        }
    };
    (@ install $function:path) => {
        async fn install(dialogue: &mut gofer_sdk::Dialogue) -> gofer_sdk::Result<()> {
            $function(dialogue).await
        }
    };
}

/// What every `serve` has to do: go on after a restart of the extension, which starts nothing anew,
/// and end when the subscription does, long before its grace period.
#[allow(dead_code)]
pub(crate) async fn restarts_and_unsubscribes(
    core: &gofer_core::Core,
    docs: &gofer_core::Installed,
) -> gofer_sdk::Result<()> {
    let before = core.runs("ops/nightly").len();
    docs.restart().await?;
    core.elapse(gofer_core::seconds(1)).await;
    assert_eq!(core.runs("ops/nightly").len(), before, "a restart starts nothing");
    let asked = tokio::time::Instant::now();
    docs.unsubscribe("ops/nightly", "docs").await?;
    assert!(asked.elapsed() < std::time::Duration::from_secs(1), "it took the grace period");
    Ok(())
}
