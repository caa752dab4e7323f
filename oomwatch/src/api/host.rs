//! Which `Host` a request to the loopback address may name.
//!
//! Any web page can have its own name resolve to 127.0.0.1, and then read the answers as if they came from itself
//! (DNS rebinding). Its requests still carry that name.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{StatusCode, header, uri::Authority},
    middleware::Next,
    response::Response,
};

use super::problem::Problem;

/// Refuses requests that name another host than this machine itself.
pub(super) async fn only_loopback(request: Request, next: Next) -> Result<Response, Problem> {
    let host = request.headers().get(header::HOST);
    let named = host.and_then(|host| host.to_str().ok());
    // A request line may have the host too. That one counts.
    let authority = match (request.uri().authority(), named) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(named)) => named.parse().ok(),
        (None, None) => None,
    };
    if authority.as_ref().is_some_and(is_loopback) {
        return Ok(next.run(request).await);
    }
    let detail = "this listener answers to localhost and loopback addresses only; \
                  --listen-public with another address answers to any name";
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail))
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_itself_is_named() {
        let check = |host: &str| is_loopback(&host.parse().unwrap());
        for good in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:9",
            "127.8.8.8",
            "[::1]:80",
            "[::1]",
        ] {
            assert!(check(good), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "10.0.0.1",
            "[::2]",
        ] {
            assert!(!check(bad), "{bad}");
        }
    }
}
