//! The author's type, erased once: from here on nothing is generic over it.
//!
//! [`Definition`] is what works before Init, [`Instance`] what works after it. Here `async_trait`
//! makes the erased traits usable as `dyn`; authors write plain `async fn`.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::listing;
use super::references::refuse_unresolved;
use super::supervisor::Supervised;
use crate::catch_panic::catch_panic_in;
use crate::client::{Gofer, PipelineId};
use crate::error::{Error, ErrorKind, Result};
use crate::extension::{
    AnyLive, Context, Dialogue, Extension, ExternalEvent, Fields, Key, Live, SealedDeclared as _,
    Settings, Subscription, Subscriptions, markdown,
};

/// What an extension is before it is initialized.
#[async_trait]
pub(crate) trait Definition: Send + Sync {
    /// The author's documentation, the settings and the parameters, in Markdown.
    fn documentation(&self) -> &str;

    async fn init(
        &self,
        config: &Settings,
        gofer: Gofer,
        failing: watch::Sender<usize>,
    ) -> Result<Arc<dyn Instance>>;

    async fn install(&self, dialogue: &mut Dialogue) -> Result<()>;

    async fn configure(&self, dialogue: &mut Dialogue) -> Result<()>;
}

/// What an extension is once it is initialized.
#[async_trait]
pub(crate) trait Instance: Send + Sync {
    /// Decodes and validates, and prepares the start.
    fn prepare(
        self: Arc<Self>,
        key: Key,
        settings: Settings,
        context: Arc<Context>,
    ) -> Result<Prepared>;

    /// Decodes and validates only.
    fn check(&self, settings: &Settings) -> Result<()>;

    async fn external_event(&self, event: ExternalEvent, live: Vec<Arc<dyn AnyLive>>)
    -> Result<()>;

    async fn shutdown(&self);
}

/// A subscription that has been accepted but not started.
pub(crate) struct Prepared {
    pub(crate) live: Arc<dyn AnyLive>,
    /// Spawns the future that supervises the author's `serve`.
    spawn: Box<dyn FnOnce() -> JoinHandle<()> + Send>,
}

impl Prepared {
    pub(crate) fn start(self) -> Arc<dyn AnyLive> {
        // The lock is held during the spawn, so that a running subscription always has a task to
        // join.
        let mut activity = self.live.activity();
        activity.task = Some((self.spawn)());
        drop(activity);
        self.live
    }
}

/// What an author declared that cannot be set from text, as a sentence.
pub fn misdeclared<E: Extension>() -> Option<String> {
    let sentence = |what: &str, field: &str| {
        format!(
            "the {what} `{field}` with a nested type, which cannot be set from text; use \
             text, a number, true or false, an enum without fields, a list of these, or \
             `gofer_sdk::GoDuration` for a duration"
        )
    };
    // Runs code of the author's types, which may panic.
    let found = catch_panic_in(|| {
        let config = E::Config::fields();
        if let Some(field) = E::Config::nested(&config) {
            return Ok(Some(sentence("configuration declares", field)));
        }
        let params = E::Params::fields();
        Ok(E::Params::nested(&params).map(|field| sentence("parameters declare", field)))
    });
    found.unwrap_or_default()
}

pub(crate) fn definition<E: Extension>() -> Arc<dyn Definition> {
    let (config, params) = (E::Config::fields(), E::Params::fields());
    Arc::new(TypedDefinition::<E> {
        documentation: documentation(&E::documentation(), &config, &params),
        config,
        params: params.into(),
        extension: PhantomData,
    })
}

fn documentation(authors: &str, config: &Fields, params: &Fields) -> String {
    let mut documentation = authors.trim().to_owned();
    for (heading, fields) in [("Configuration", config), ("Parameters", params)] {
        if !documentation.is_empty() {
            documentation.push_str("\n\n");
        }
        documentation.push_str(markdown(heading, fields).trim());
    }
    documentation.push('\n');
    listing::truncate(documentation)
}

struct TypedDefinition<E> {
    documentation: String,
    config: Fields,
    params: Arc<Fields>,
    extension: PhantomData<fn() -> E>,
}

#[async_trait]
impl<E: Extension> Definition for TypedDefinition<E> {
    fn documentation(&self) -> &str {
        &self.documentation
    }

    async fn init(
        &self,
        config: &Settings,
        gofer: Gofer,
        failing: watch::Sender<usize>,
    ) -> Result<Arc<dyn Instance>> {
        let kind = ErrorKind::InvalidConfiguration;
        refuse_unresolved(config, kind)?;
        let config = E::Config::decode(config, &self.config)
            .map_err(|problems| Error::invalid(kind, problems))?;
        let extension = E::init(config, gofer).await?;
        Ok(Arc::new(Initialized { extension, params: Arc::clone(&self.params), failing }))
    }

    async fn install(&self, dialogue: &mut Dialogue) -> Result<()> {
        E::install(dialogue).await
    }

    async fn configure(&self, dialogue: &mut Dialogue) -> Result<()> {
        E::configure(dialogue).await
    }
}

/// An initialized extension and what its subscriptions share.
pub(super) struct Initialized<E> {
    pub(super) extension: E,
    params: Arc<Fields>,
    /// How many subscriptions are waiting to be restarted.
    pub(super) failing: watch::Sender<usize>,
}

impl<E: Extension> Initialized<E> {
    fn accept(&self, settings: &Settings) -> Result<E::Params> {
        let kind = ErrorKind::InvalidParameter;
        refuse_unresolved(settings, kind)?;
        let params = E::Params::decode(settings, &self.params)
            .map_err(|problems| Error::invalid(kind, problems))?;
        self.extension.validate(&params)?;
        Ok(params)
    }
}

#[async_trait]
impl<E: Extension> Instance for Initialized<E> {
    fn prepare(
        self: Arc<Self>,
        key: Key,
        settings: Settings,
        context: Arc<Context>,
    ) -> Result<Prepared> {
        let params = self.accept(&settings)?;
        let pipeline = PipelineId::new(key.namespace(), key.pipeline());
        self.extension.validate_for(&pipeline, &params)?;
        let live = Arc::new(Live::new(key, settings, context, params));
        let supervised = Supervised { ready: self, live: Arc::clone(&live) };
        Ok(Prepared { live, spawn: Box::new(move || tokio::spawn(supervised.supervise())) })
    }

    fn check(&self, settings: &Settings) -> Result<()> {
        self.accept(settings).map(drop)
    }

    async fn external_event(
        &self,
        event: ExternalEvent,
        live: Vec<Arc<dyn AnyLive>>,
    ) -> Result<()> {
        let typed = live.into_iter().filter_map(|live| {
            let live: Arc<dyn Any + Send + Sync> = live;
            // All have been made by `prepare`, and so have this type.
            live.downcast::<Live<E::Params>>().ok().map(Subscription::new)
        });
        let subscriptions = Subscriptions::new(typed.collect());
        self.extension.external_event(event, subscriptions).await
    }

    async fn shutdown(&self) {
        self.extension.shutdown().await;
    }
}
