//! `oomwatch add` and `remove`, which change the daemon's containers.

use std::{
    io::{Write as _, stdout},
    path,
};

use anyhow::Context as _;
use hyper::Method;
use oomwatch::printable;
use serde_json::json;

use super::{AddArgs, RemoveArgs, client::Client, exit::Exit, output};

/// Registers a container.
///
/// # Errors
/// When no daemon answers, or it refuses.
pub(crate) async fn add(args: &AddArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.control)?;
    let cgroup =
        path::absolute(&args.path).with_context(|| format!("finding {}", args.path.display()))?;
    let cgroup = cgroup
        .to_str()
        .with_context(|| format!("{} is not UTF-8", cgroup.display()))?;
    let body = json!({ "cgroup": cgroup }).to_string();
    client.ask(Method::PUT, &place(&args.id), body).await?;
    say("registered", &args.id)
}

/// Takes a container out.
///
/// # Errors
/// When no daemon answers, or it refuses.
pub(crate) async fn remove(args: &RemoveArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.control)?;
    let path = place(&args.id);
    client.ask(Method::DELETE, &path, String::new()).await?;
    say("removed", &args.id)
}

fn say(done: &str, id: &str) -> anyhow::Result<Exit> {
    let id = printable(id.as_bytes());
    output::written(writeln!(stdout(), "{done} {id}"))
}

/// The path of a container; an id may have anything in it, slashes too.
fn place(id: &str) -> String {
    use std::fmt::Write as _;
    let mut path = String::from("/v1/containers/");
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_id_has_a_path() {
        assert_eq!(place("web-1"), "/v1/containers/web-1");
        assert_eq!(
            place("/a/..?é#"),
            "/v1/containers/%2Fa%2F%2E%2E%3F%C3%A9%23"
        );
    }
}
