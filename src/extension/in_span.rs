//! The spans around an author's code, so that each line that it logs says what it is about.
//!
//! A subscription that waits holds no span, which would be several times as large as its future: one
//! is made for each poll, and kept for the next only while a call is in flight that starts a run, of
//! which there are few. The first poll has the span that the settings were validated in. They are of
//! the level `error`, so that lines of every level have them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tracing::Span;

use super::key::Key;
use super::live::Live;

impl Key {
    /// Of what is done for the subscription.
    pub(crate) fn span(&self) -> Span {
        tracing::error_span!(
            "subscription",
            namespace = self.namespace(),
            pipeline = self.pipeline(),
            label = self.label()
        )
    }
}

/// Of a call of Gofer's, by the name of its method.
pub(crate) fn call_span(method: &'static str) -> Span {
    tracing::error_span!("call", call = method)
}

/// What a future is about.
pub(crate) trait About {
    fn key(&self) -> &Key;

    /// The span of an earlier poll, if it was kept.
    fn kept_span(&self) -> Option<Span> {
        None
    }

    /// Keeps the span of a poll, if the next one may be soon.
    fn keep_span(&self, _: Span) {}
}

impl About for Key {
    fn key(&self) -> &Key {
        self
    }
}

impl<P: ?Sized> About for &Live<P> {
    fn key(&self) -> &Key {
        &self.key
    }

    fn kept_span(&self) -> Option<Span> {
        Live::kept_span(self)
    }

    fn keep_span(&self, span: Span) {
        Live::keep_span(self, span);
    }
}

/// Polls a future in the span of its subscription.
pub(crate) fn in_span<A: About, F: Future>(about: A, future: F) -> InSpan<A, F> {
    InSpan { about, future }
}

pin_project! {
    /// See [`in_span`].
    pub(crate) struct InSpan<A, F> {
        about: A,
        #[pin]
        future: F,
    }
}

impl<A: About, F: Future> Future for InSpan<A, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let span = this.about.kept_span().unwrap_or_else(|| this.about.key().span());
        let polled = span.in_scope(|| this.future.poll(context));
        if polled.is_pending() {
            this.about.keep_span(span);
        }
        polled
    }
}
