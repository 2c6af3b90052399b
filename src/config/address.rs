//! Addresses of the web: which of them requests can go to, and which of them are private.

use std::net::{IpAddr, Ipv4Addr};
use url::Url;

/// Why a text is no address that requests can go to, as a fragment behind "must be"; it may be a secret, so it is
/// not repeated.
pub fn web_address(text: &str) -> Result<Url, &'static str> {
    // The parser silently drops these; what is sent must be what is written.
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("an address without spaces and line breaks");
    }
    let url = Url::parse(text).map_err(|_| "an address such as https://example.com/path")?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("an http or https address");
    }
    Ok(url)
}

/// An address that operations' paths are appended to; the fragment fits behind "must be".
pub fn base_url(text: &str) -> Result<Url, &'static str> {
    let url = web_address(text)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address without a user; the key belongs in `api_key`");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("an address without `?` and `#`: paths are appended to it");
    }
    Ok(url)
}

/// The domain of AWS's services in `region`: each partition of AWS has one of its own.
pub fn aws_domain(region: &str) -> &'static str {
    AWS_PARTITIONS
        .iter()
        .find(|(prefix, _)| region.starts_with(prefix))
        .map_or("amazonaws.com", |(_, domain)| domain)
}

/// How regions of the other partitions begin, and the domain there.
const AWS_PARTITIONS: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
];

/// Whether what is sent there can be read on the way.
pub fn is_exposed(url: &Url) -> bool {
    url.scheme() == "http" && !url.host_str().is_some_and(is_local)
}

/// Whether a host is this machine or one of a private network, as far as its name tells.
pub fn is_local(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse() {
        Ok(IpAddr::V4(address)) => is_local_v4(address),
        Ok(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(mapped) => is_local_v4(mapped),
            None => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
        },
        // Names without a dot are of the local network or of a container's.
        Err(_) => {
            !host.contains('.')
                || LOCAL_DOMAINS.iter().any(|domain| host.trim_end_matches('.').ends_with(domain))
        }
    }
}

fn is_local_v4(address: Ipv4Addr) -> bool {
    let shared = address.octets()[0] == 100 && (64..128).contains(&address.octets()[1]);
    address.is_loopback() || address.is_private() || address.is_link_local() || shared
}

/// Domains that no public name is in.
const LOCAL_DOMAINS: [&str; 5] = [".localhost", ".local", ".internal", ".lan", ".home.arpa"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_of_the_web() {
        for sound in ["https://a.b", "http://[::1]:80/x?y", "https://me:word@a.b/#c"] {
            assert!(web_address(sound).is_ok(), "{sound}");
        }
        for bad in
            ["", "a.b", "//a.b", "ftp://a.b", "https://", "https:// a.b", "https://a\n.b", "mailto:a@b"]
        {
            assert!(web_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_partition_of_aws_has_its_domain() {
        for (region, domain) in [
            ("eu-central-1", "amazonaws.com"),
            ("us-gov-west-1", "amazonaws.com"),
            ("cn-north-1", "amazonaws.com.cn"),
            ("eusc-de-east-1", "amazonaws.eu"),
            ("us-isob-east-1", "sc2s.sgov.gov"),
        ] {
            assert_eq!(aws_domain(region), domain, "{region}");
        }
    }

    #[test]
    fn private_hosts() {
        for local in
            ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.1.1", "100.64.0.1", "[::1]", "[fd00::1]"]
        {
            assert!(is_local(local), "{local}");
        }
        for local in ["[::ffff:10.0.0.1]", "localhost", "litellm", "gpu.lan", "a.internal."] {
            assert!(is_local(local), "{local}");
        }
        for public in
            ["8.8.8.8", "100.128.0.1", "172.32.0.1", "[2001:db8::1]", "[::ffff:8.8.8.8]", "a.b", "local.com"]
        {
            assert!(!is_local(public), "{public}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(https?://)?\\PC*") {
            let _ = base_url(&text).map(|url| is_exposed(&url));
            is_local(&text);
        }
    }
}
