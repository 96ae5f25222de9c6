//! A clock as server-sent events: `cargo run -p sanserve-smol --example smol_sse`, then `curl -N localhost:8000/clock`
//! or a browser on `localhost:8000`.
use std::io;
use std::time::{Duration, SystemTime};

use sanserve_smol::{Exchange, Handler, Server, Site, StatusCode};
use smol::io::AsyncWriteExt;
use smol::stream::StreamExt;

const PAGE: &str = "<!doctype html><title>Clock</title><h1></h1><script>
new EventSource('/clock').onmessage = event => document.querySelector('h1').textContent = event.data
</script>
";

struct Clock;

impl Handler for Clock {
    async fn do_get(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        if x.path() != b"/clock" {
            return x.answer(StatusCode::OK, "text/html;charset=utf-8", PAGE);
        }
        let head = x.respond(StatusCode::OK)?.field("Content-Type", "text/event-stream")?;
        head.field("Cache-Control", "no-store")?.send()?;
        // It runs until the browser disconnects: then this future is dropped where it waits.
        let mut ticks = smol::Timer::interval(Duration::from_secs(1));
        while !x.is_draining() {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
            let (day, second) = (now.as_secs() / 86_400, now.as_secs() % 86_400);
            let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
            let event =
                format!("id: {day}-{hour:02}{minute:02}{second:02}\ndata: {hour:02}:{minute:02}:{second:02} UTC\n\n");
            x.write_all(event.as_bytes()).await?;
            // Waits for a second, unless the server shuts down first.
            let tick = async {
                ticks.next().await;
            };
            smol::future::or(tick, x.draining().begun()).await;
        }
        Ok(())
    }

    /// Even an endless stream has a head.
    async fn do_head(&mut self, x: &mut Exchange<'_>) -> io::Result<()> {
        x.respond(StatusCode::OK)?.field("Content-Type", "text/event-stream")?.send()
    }
}

fn main() -> io::Result<()> {
    let server = Server::bind("127.0.0.1:8000", Site::without_files())?;
    server.with_handler(|| Clock).run()
}
