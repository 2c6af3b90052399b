//! AWS: Signature Version 4, with the credentials that AWS's own chain finds.

use super::cache::{Cache, Issued};
use super::routes::CredentialRoutes;
use crate::clock::Clock;
use crate::http::call::{BodyHash, BodyLimit, CONTENT_HASH, Call, UNSIGNED_PAYLOAD};
use crate::http::failure::Failure;
use crate::http::limits;
use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{HeaderName, Uri};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

/// Where an account's AWS credentials come from.
#[derive(Clone, Debug)]
pub struct AwsSource {
    /// The region that roles are assumed in.
    pub region: String,
    /// The profile of the shared files; `None`: as `AWS_PROFILE` says, else `default`.
    pub profile: Option<String>,
    /// A fixed key, its id and its secret; `None`: AWS's usual chain (environment, shared files, web identity,
    /// container, instance).
    pub fixed: Option<(String, SecretString)>,
}

pub(super) struct Signer {
    source: AwsSource,
    connector: Connector,
    clock: Clock,
    credentials: Cache<Credentials>,
}

impl Signer {
    pub(super) fn new(source: AwsSource, routes: CredentialRoutes, clock: Clock) -> Self {
        let connector = Connector { routes, timeout: limits::CONNECT_TIMEOUT };
        Self { source, connector, credentials: Cache::new(clock.clone()), clock }
    }

    /// `call`, signed for `service` in `region`.
    pub(super) async fn sign(
        &self,
        call: Call,
        service: &'static str,
        region: &str,
    ) -> Result<Call, Failure> {
        let credentials = self.credentials.get(|| self.obtain()).await?;
        signed(call, &credentials, service, region, self.clock.now())
    }

    pub(super) async fn doubt(&self) -> bool {
        self.credentials.doubt().await
    }

    /// Asks the chain, made anew each time so that it reads files that have changed.
    async fn obtain(&self) -> Result<Issued<Credentials>, Failure> {
        if let Some((id, secret)) = &self.source.fixed {
            let credentials =
                Credentials::new(id.trim(), secret.expose_secret().trim(), None, None, "configuration");
            return Ok(Issued { credential: credentials, until: None });
        }
        let region = Region::new(self.source.region.clone());
        let config = ProviderConfig::default()
            .with_region(Some(region.clone()))
            .with_http_client(self.connector.clone());
        let mut chain = DefaultCredentialsChain::builder().configure(config).region(region);
        if let Some(profile) = &self.source.profile {
            chain = chain.profile_name(profile);
        }
        let credential = chain.build().await.provide_credentials().await.map_err(|error| refusal(&error))?;
        let until = credential.expiry().and_then(|until| Timestamp::try_from(until).ok());
        Ok(Issued { credential, until })
    }
}

/// Why there are no credentials.
fn refusal(error: &CredentialsError) -> Failure {
    let (message, refused) = match error {
        CredentialsError::CredentialsNotLoaded(_) => (
            "no AWS credentials are found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `profile`, or `api_key`"
                .to_owned(),
            true,
        ),
        CredentialsError::ProviderTimedOut(_) => ("AWS credentials do not come in time".to_owned(), false),
        // The innermost cause says which file, profile or service it was.
        other => (format!("AWS credentials cannot be had: {}", innermost(other)), matches!(other, CredentialsError::InvalidConfiguration(_))),
    };
    Failure::Credentials { message, refused }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// `call`, signed with `credentials` as of `now`.
fn signed(
    mut call: Call,
    credentials: &Credentials,
    service: &'static str,
    region: &str,
    now: Timestamp,
) -> Result<Call, Failure> {
    let mut settings = SigningSettings::default();
    if service == S3 {
        // An object's key is signed as it is sent (<https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>).
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    let unsigned =
        call.request.headers_mut().remove(CONTENT_HASH).is_some_and(|value| value == UNSIGNED_PAYLOAD);
    let unsignable = |_| Failure::BadRequest("it cannot be signed; check `base_url` and `region`".to_owned());
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(SystemTime::from(now))
        .settings(settings)
        .build()
        .map_err(|_| Failure::BadRequest("it cannot be signed; `region` is missing".to_owned()))?
        .into();
    let (instructions, _) = {
        let request = &call.request;
        let body = match request.extensions().get::<BodyHash>() {
            _ if unsigned => SignableBody::UnsignedPayload,
            Some(BodyHash(hash)) => SignableBody::Precomputed(hash.clone()),
            None => SignableBody::Bytes(request.body()),
        };
        let headers =
            request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let signable =
            SignableRequest::new(request.method().as_str(), request.uri().to_string(), headers, body)
                .map_err(unsignable)?;
        sign(signable, &parameters).map_err(unsignable)?.into_parts()
    };
    let (headers, _) = instructions.into_parts();
    for header in headers {
        let mut value = http::HeaderValue::from_str(header.value()).map_err(|_| Failure::Credentials {
            message: "the AWS credentials hold characters that no header may carry".to_owned(),
            refused: true,
        })?;
        // The signature and the session's token; the date is no secret.
        value.set_sensitive(header.sensitive() || header.name() == "authorization");
        call.request.headers_mut().insert(HeaderName::from_static(header.name()), value);
    }
    Ok(call)
}

/// The name under which S3 is signed for.
pub const S3: &str = "s3";

/// AWS's chain sends its own requests by our ways out.
#[derive(Clone)]
struct Connector {
    routes: CredentialRoutes,
    timeout: Duration,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpClient for Connector {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let bounds = [settings.connect_timeout(), settings.read_timeout()];
        let timeout = bounds.into_iter().flatten().max().unwrap_or(self.timeout);
        SharedHttpConnector::new(Self { timeout, ..self.clone() })
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (routes, timeout) = (self.routes.clone(), self.timeout);
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let body = Bytes::copy_from_slice(request.body().bytes().unwrap_or_default());
            let request = request.map(|_| body);
            let way = if is_of_this_machine(request.uri()) { &routes.metadata } else { &routes.outward };
            let body_limit = BodyLimit::Whole(limits::RECEIVER_BODY);
            let answer =
                way.send(Call { request, timeout, body_limit }).await.map_err(|failure| match failure {
                    Failure::Timeout(_) | Failure::ConnectTimeout => ConnectorError::timeout(failure.into()),
                    other => ConnectorError::io(other.into()),
                })?;
            let status = answer
                .status
                .as_u16()
                .try_into()
                .map_err(|_| ConnectorError::io(Failure::BadResponse.into()))?;
            let mut response = HttpResponse::new(status, SdkBody::from(answer.body));
            for (name, value) in &answer.headers {
                if let Ok(value) = value.to_str() {
                    response.headers_mut().append(name.as_str().to_owned(), value.to_owned());
                }
            }
            Ok(response)
        })
    }
}

/// Whether the address belongs to this machine or its cloud's metadata: never asked through a proxy.
fn is_of_this_machine(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    match bare.parse() {
        Ok(IpAddr::V4(address)) => address.is_link_local() || address.is_loopback(),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
        Err(_) => bare == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Method, Request};

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn call(method: Method, url: &str, headers: &[(&'static str, &'static str)], body: &'static str) -> Call {
        let mut request = Request::new(Bytes::from_static(body.as_bytes()));
        *request.method_mut() = method;
        *request.uri_mut() = url.parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        Call { request, timeout: Duration::from_secs(1), body_limit: BodyLimit::Whole(1) }
    }

    fn credentials(token: Option<&str>) -> Credentials {
        Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            token.map(str::to_owned),
            None,
            "test",
        )
    }

    fn signature(call: &Call) -> &str {
        call.request.headers()["authorization"].to_str().unwrap().rsplit('=').next().unwrap()
    }

    /// The signatures are botocore's (1.44.8, `SigV4Auth` and `S3SigV4Auth`) for the same requests at the same time.
    #[test]
    fn it_signs_as_aws_s_own_sdk_does() {
        let arn = "arn%3Aaws%3Abedrock%3Aus-east-1%3A111122223333%3Amodel-invocation-job%2Fab12cd34ef56";
        let url = format!("https://bedrock.us-east-1.amazonaws.com/model-invocation-job/{arn}");
        let get = signed(
            call(Method::GET, &url, &[("accept", "application/json")], ""),
            &credentials(None),
            "bedrock",
            "us-east-1",
            NOW,
        )
        .unwrap();
        assert_eq!(signature(&get), GET);
        let url = "https://bedrock.us-east-1.amazonaws.com/model-invocation-job";
        let post = call(Method::POST, url, &[("content-type", "application/json")], r#"{"jobName":"x"}"#);
        let post = signed(post, &credentials(Some("session/token==")), "bedrock", "us-east-1", NOW).unwrap();
        assert_eq!(signature(&post), POST);
        assert_eq!(post.request.headers()["x-amz-security-token"], "session/token==");
        let url = "http://127.0.0.1:4566/a-bucket/in/a%20b%2Bc.jsonl";
        let put = call(Method::PUT, url, &[(CONTENT_HASH, UNSIGNED_PAYLOAD)], "");
        let put = signed(put, &credentials(None), S3, "eu-central-1", NOW).unwrap();
        assert_eq!(put.request.headers()[CONTENT_HASH], UNSIGNED_PAYLOAD);
        assert_eq!(signature(&put), PUT);
        let url = "http://127.0.0.1:4566/a-bucket?list-type=2&prefix=out%2Fab%2F";
        let list =
            signed(call(Method::GET, url, &[], ""), &credentials(None), S3, "eu-central-1", NOW).unwrap();
        assert_eq!(signature(&list), LIST);
    }

    const GET: &str = "144424fe3593e683b2e72156f7c0301b2a9f4868ade2da1db027246a924ad781";
    const POST: &str = "48e56ba78ae2b8559fc898f6f7aeab1260c4ec699b9c1ee0fa3bdf05c540310d";
    const PUT: &str = "9527f1ca60a693f90529f8215f66a974c372e24062ca1149b89a1c17d3321f90";
    const LIST: &str = "351ddc8494da594d1676b6e9b9c1e03f2b52555d539f84e40ffe79213a4d99ef";

    #[test]
    fn a_body_that_is_sent_as_it_is_read_is_signed_by_its_hash_and_further_headers_too() {
        let url = "https://aws-external-anthropic.us-west-2.api.aws/v1/messages/batches";
        let body = r#"{"requests":[]}"#;
        let sign = |headers: &[(&'static str, &'static str)], body: &'static str, hash: Option<&str>| {
            let mut call = call(Method::POST, url, headers, body);
            if let Some(hash) = hash {
                call.request.extensions_mut().insert(BodyHash(hash.to_owned()));
            }
            signed(call, &credentials(None), "aws-external-anthropic", "us-west-2", NOW).unwrap()
        };
        let workspace = [("anthropic-workspace-id", "wrkspc_1")];
        let whole = sign(&workspace, body, None);
        let digest = data_encoding::HEXLOWER.encode(&<sha2::Sha256 as sha2::Digest>::digest(body));
        let streamed = sign(&workspace, "", Some(&digest));
        assert_eq!(signature(&streamed), signature(&whole));
        assert_ne!(signature(&sign(&workspace, "", None)), signature(&whole));
        assert_ne!(signature(&sign(&[], body, None)), signature(&whole));
        let told = whole.request.headers()["authorization"].to_str().unwrap();
        assert!(told.contains("SignedHeaders=anthropic-workspace-id;host;x-amz-date"), "{told}");
    }

    #[test]
    fn what_completes_a_call_is_not_shown() {
        let url = "https://bedrock.us-east-1.amazonaws.com/model-invocation-jobs";
        let call =
            signed(call(Method::GET, url, &[], ""), &credentials(Some("token")), "bedrock", "us-east-1", NOW)
                .unwrap();
        let headers = call.request.headers();
        assert!(headers["authorization"].is_sensitive() && headers["x-amz-security-token"].is_sensitive());
        assert_eq!(headers["x-amz-date"], "20261118T110640Z");
    }

    #[test]
    fn only_this_machine_and_its_cloud_are_asked_straight() {
        let is = |url: &str| is_of_this_machine(&url.parse().unwrap());
        for own in [
            "http://169.254.169.254/x",
            "http://[fd00:ec2::254]/",
            "http://169.254.170.2/v2",
            "http://localhost:1/",
            "http://[::1]/",
        ] {
            assert!(is(own), "{own}");
        }
        for other in
            ["https://sts.eu-central-1.amazonaws.com/", "https://10.0.0.1/", "https://[2001:db8::1]/"]
        {
            assert!(!is(other), "{other}");
        }
    }
}
