//! `cargo xtask demo`: from a fresh checkout to a page served by nginx in a pod.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::steps::{self, has, output, root, run_command, say, step, target};
use crate::{images, kubectl, setup};

pub(crate) fn run() -> Result<()> {
    let started = Instant::now();
    setup::machine()?;
    say("Building (the first time takes a quarter of an hour: RocksDB is large) ...");
    steps::build_program()?;
    let coracle = target()?.join("release/coracle");
    let coracle = coracle.to_string_lossy().into_owned();
    images::ensure_nginx()?;
    let kubectl = if has("kubectl") {
        "kubectl".to_owned()
    } else {
        step("Get kubectl", || Ok(kubectl::ensure()?.newest.display().to_string()))?
    };
    step("Start the cluster", || run_command(Command::new(&coracle).arg("start")))?;
    let examples = root().join("examples/nginx").display().to_string();
    step("Apply examples/nginx", || output(&kubectl, &["apply", "-f", &examples]))?;
    step("Wait for nginx", || output(&kubectl, &["rollout", "status", "deployment/nginx", "--timeout=120s"]))?;
    let url = output(&coracle, &["service", "nginx-svc", "--url"])?;
    let url = url.trim();
    let title = step(&format!("Fetch {url}"), || title(url))?;
    say(format!("\nnginx says \"{title}\" at {url}, after {:.0} s in all.", started.elapsed().as_secs_f64()));
    say("Look around with kubectl get pods; end it with: coracle delete");
    Ok(())
}

/// The title of the page at `url`. Endpoints take a moment to reach the proxy, so it is tried for a while.
fn title(url: &str) -> Result<String> {
    let address = url.strip_prefix("http://").context("the URL is a plain one")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match fetch(address) {
            Ok(page) => {
                let title = page
                    .split_once("<title>")
                    .and_then(|(_, rest)| rest.split_once("</title>"))
                    .map(|(title, _)| title.to_owned());
                return title.context("the page has no title");
            }
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn fetch(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    if !page.starts_with("HTTP/1.1 200") {
        bail!("{address} answered {:?}", page.lines().next().unwrap_or_default());
    }
    Ok(page)
}
