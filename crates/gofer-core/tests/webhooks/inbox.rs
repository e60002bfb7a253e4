//! An extension that records the events it receives, and does what their queries say.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use gofer_core::{Core, CoreBuilder, ExternalEventLimits, Installed};
use gofer_sdk::{Error, ErrorKind, Extension, ExternalEvent, Gofer, NoParams, Result};
use ring::digest::{SHA256, digest};
use tokio::sync::{Notify, Semaphore};

/// The inboxes of all tests of this process.
static ALL: LazyLock<Mutex<HashMap<String, Arc<Inbox>>>> = LazyLock::new(Mutex::default);

/// What an extension has received.
pub struct Inbox {
    /// Raw requests, if they are small.
    raw: Mutex<Vec<Vec<u8>>>,
    /// How often each `X-Id` arrived with the right digest.
    complete: Mutex<HashMap<String, usize>>,
    begun: Mutex<usize>,
    arrived: Notify,
    released: Semaphore,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            raw: Mutex::default(),
            complete: Mutex::default(),
            begun: Mutex::default(),
            arrived: Notify::new(),
            released: Semaphore::new(0),
        }
    }
}

impl Inbox {
    pub fn raw(&self) -> Vec<String> {
        let raw = self.raw.lock().unwrap();
        raw.iter().map(|raw| String::from_utf8_lossy(raw).into_owned()).collect()
    }

    pub fn complete(&self) -> HashMap<String, usize> {
        self.complete.lock().unwrap().clone()
    }

    /// Waits until that many events have been received.
    pub async fn begun(&self, count: usize) {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            if *self.begun.lock().unwrap() >= count {
                return;
            }
            arrived.await;
        }
    }

    /// Releases that many events whose queries made them hang.
    pub fn release(&self, count: usize) {
        self.released.add_permits(count);
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct Config {
    /// The name of the inbox of this extension.
    inbox: String,
}

pub struct Recorder(Arc<Inbox>);

impl Extension for Recorder {
    type Config = Config;
    type Params = NoParams;

    async fn init(config: Config, _: Gofer) -> Result<Self> {
        Ok(Self(Arc::clone(ALL.lock().unwrap().entry(config.inbox).or_default())))
    }

    async fn external_event(
        &self,
        event: ExternalEvent,
        _: gofer_sdk::Subscriptions<NoParams>,
    ) -> Result<()> {
        *self.0.begun.lock().unwrap() += 1;
        self.0.arrived.notify_waiters();
        match event.query() {
            Some("hang") => self.0.released.acquire().await?.forget(),
            Some("panic") => panic!("on purpose, with hunter2"),
            Some("refuse") => return Err(Error::invalid_parameter("hunter2", "is not right")),
            Some("fail") => return Err(Error::internal("hunter2")),
            Some("not-found") => return Err(Error::new(ErrorKind::NotFound, "hunter2")),
            Some("full") => return Err(Error::new(ErrorKind::ResourceExhausted, "hunter2")),
            Some("later") => return Err(Error::unavailable("hunter2")),
            _ => {}
        }
        if event.payload().len() < 4096 {
            self.0.raw.lock().unwrap().push(event.payload().to_vec());
        }
        if let Some(id) = event.header("x-id") {
            let is = hex(event.body());
            assert_eq!(event.header("x-digest"), Some(&*is), "the body of {id} has been changed");
            *self.0.complete.lock().unwrap().entry(id.to_owned()).or_default() += 1;
        }
        Ok(())
    }
}

/// The SHA-256 digest of a body, as text.
pub fn hex(bytes: &[u8]) -> String {
    format!("{:?}", digest(&SHA256, bytes))
}

/// A core that accepts external events, with extensions that record them.
pub struct Setup {
    pub core: Core,
    pub address: std::net::SocketAddr,
}

impl Setup {
    pub async fn start(limits: ExternalEventLimits) -> Self {
        Self::of(Core::builder().external_event_limits(limits)).await
    }

    pub async fn of(builder: CoreBuilder) -> Self {
        let core = builder.external_events(([127, 0, 0, 1], 0)).start().await.unwrap();
        let address = core.external_events_address().unwrap();
        Self { core, address }
    }

    /// Installs an extension with an inbox of its own.
    pub async fn install(&self, name: &str) -> (Installed, Arc<Inbox>) {
        let own = format!("{}/{name}", self.address);
        let installed = self.core.install::<Recorder>(name, [("inbox", own.as_str())]).await;
        let inbox = Arc::clone(ALL.lock().unwrap().get(&own).unwrap());
        (installed.unwrap(), inbox)
    }
}
