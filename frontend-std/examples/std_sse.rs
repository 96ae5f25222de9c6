//! A clock as server-sent events: `cargo run -p sanserve-std --example std_sse`, then `curl -N localhost:8000/clock`
//! or a browser on `localhost:8000`.
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use sanserve_std::{Exchange, Handler, Server, Site, StatusCode};

const PAGE: &str = "<!doctype html><title>Clock</title><h1></h1><script>
new EventSource('/clock').onmessage = event => document.querySelector('h1').textContent = event.data
</script>
";

struct Clock;

impl Handler for Clock {
    fn do_get(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        if x.path() != b"/clock" {
            return x.answer(StatusCode::OK, "text/html;charset=utf-8", PAGE);
        }
        let head = x.respond(StatusCode::OK)?.field("Content-Type", "text/event-stream")?;
        head.field("Cache-Control", "no-store")?.send()?;
        let draining = x.draining();
        while !draining.has_begun() {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
            let second = now.as_secs() % 86_400;
            let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
            write!(x, "data: {hour:02}:{minute:02}:{second:02} UTC\n\n")?;
            // When the browser has disconnected, this fails, and the loop ends.
            x.flush()?;
            // Waits for a second, unless the server shuts down first.
            draining.wait(Duration::from_secs(1));
        }
        Ok(())
    }

    /// Even an endless stream has a head.
    fn do_head(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        x.respond(StatusCode::OK)?.field("Content-Type", "text/event-stream")?.send()
    }
}

fn main() -> io::Result<()> {
    let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
    server.with_handler(|| Clock).run()
}
