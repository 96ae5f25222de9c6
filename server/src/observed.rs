//! What observes the connections of a site: a recording, a trace, or both.

use sanserve_core::{Connection, Context};
use sanserve_transcript::{Event, Recorder, Secrets, Settings, record};

use crate::record::Recording;
use crate::trace::Trace;

/// What records connections and prints their events.
#[derive(Clone, Default)]
pub(crate) struct Observation {
    pub(crate) recording: Option<Recording>,
    pub(crate) trace: Option<Trace>,
    /// How credentials are treated. Default: they are masked.
    pub(crate) secrets: Secrets,
}

/// Two recorders of one connection. Each is dropped when it needs no further events.
struct Both(Option<Box<dyn Recorder>>, Option<Box<dyn Recorder>>);

impl Recorder for Both {
    fn event(&mut self, event: Event) {
        match (&mut self.0, &mut self.1) {
            (Some(one), Some(other)) => {
                one.event(event.clone());
                other.event(event);
            }
            (Some(one), None) | (None, Some(one)) => one.event(event),
            (None, None) => {}
        }
    }

    fn waits(&mut self) -> bool {
        for each in [&mut self.0, &mut self.1] {
            each.take_if(|recorder| !recorder.waits());
        }
        self.0.is_some() || self.1.is_some()
    }
}

impl Observation {
    pub(crate) fn is_on(&self) -> bool {
        self.recording.is_some() || self.trace.is_some()
    }

    /// Begins to observe a connection that `runtime` serves.
    pub(crate) fn begin(&self, connection: &mut Connection, cx: &Context<'_>, runtime: &str) {
        let peer = connection.peer();
        let recorder = self.recording.as_ref().and_then(|recording| {
            let settings = Settings::default()
                .starting(cx.now)
                .with_config(cx.config.clone())
                .with_peer(peer)
                .with_masked(self.secrets == Secrets::Masked);
            recording.begin(settings, format!(" Recorded by sanserve {} on {runtime}.", env!("CARGO_PKG_VERSION")))
        });
        let lines = self.trace.as_ref().map(|trace| trace.begin(peer));
        let recorder = match (recorder, lines) {
            (Some(recorder), Some(lines)) => Box::new(Both(Some(recorder), Some(lines))),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return,
        };
        record(connection, recorder, self.secrets, cx);
    }
}
