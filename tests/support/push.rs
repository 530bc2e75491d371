//! Pushing to a registry: blobs by POST and PUT, then manifests, as the OCI distribution spec has
//! it.

use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use reqwest::{Certificate, Client, Method, Response, StatusCode};
use tofufs::digest::Digest;
use tofufs::oci::{IMAGE, INDEX};

use super::pack::{Artifact, Document};

/// With what the registry is asked.
#[derive(Clone, Debug)]
pub enum Credential {
    None,
    Basic(String, String),
    Bearer(String),
}

/// A client for one repository.
pub struct Push {
    base: String,
    repo: String,
    credential: Credential,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Push {
    /// For `repo` at `base` (`SCHEME://HOST:PORT`); `ca` is the authority to trust, as PEM.
    pub fn new(base: &str, repo: &str, credential: Credential, ca: Option<&str>) -> Push {
        drop(rustls::crypto::ring::default_provider().install_default());
        let certificates =
            ca.map(|pem| Certificate::from_pem(pem.as_bytes()).expect("PEM of ours"));
        let client =
            Client::builder().no_proxy().tls_certs_only(certificates).build().expect("a client");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Push { base: base.to_owned(), repo: repo.to_owned(), credential, client, runtime }
    }

    /// Sends one request to `url`, or to `/v2/REPO/url` where it is no absolute one.
    pub fn request(
        &self,
        method: Method,
        url: &str,
        media_type: Option<&str>,
        body: Vec<u8>,
    ) -> Response {
        let url = match url {
            absolute if absolute.contains("://") => absolute.to_owned(),
            from_top if from_top.starts_with('/') => format!("{}{from_top}", self.base),
            relative => format!("{}/v2/{}/{relative}", self.base, self.repo),
        };
        let mut request =
            self.client.request(method, &url).header(ACCEPT, format!("{IMAGE}, {INDEX}, */*"));
        request = match &self.credential {
            Credential::None => request,
            Credential::Basic(user, password) => request.basic_auth(user, Some(password)),
            Credential::Bearer(token) => request.bearer_auth(token),
        };
        if let Some(media_type) = media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        self.runtime.block_on(request.body(body).send()).unwrap_or_else(|e| panic!("{url}: {e:?}"))
    }

    fn expect(&self, response: Response, wanted: StatusCode) -> Response {
        let (status, url) = (response.status(), response.url().clone());
        if status != wanted {
            let text = self.runtime.block_on(response.text()).unwrap_or_default();
            panic!("{url}: {status}: {text}");
        }
        response
    }

    /// Uploads one blob, unless it is there.
    pub fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        if self.request(Method::HEAD, &format!("blobs/{digest}"), None, vec![]).status()
            == StatusCode::OK
        {
            return digest;
        }
        let begun = self.request(Method::POST, "blobs/uploads/", None, vec![]);
        let begun = self.expect(begun, StatusCode::ACCEPTED);
        let location = begun.headers()[LOCATION].to_str().expect("a URL").to_owned();
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={digest}");
        let put = self.request(Method::PUT, &url, Some("application/octet-stream"), bytes.to_vec());
        self.expect(put, StatusCode::CREATED);
        digest
    }

    /// Uploads one manifest under a tag or its digest.
    pub fn manifest(&self, reference: &str, document: &Document) {
        let url = format!("manifests/{reference}");
        let put =
            self.request(Method::PUT, &url, Some(document.media_type), document.bytes.clone());
        self.expect(put, StatusCode::CREATED);
    }

    /// Uploads all of `artifact` and tags it.
    pub fn artifact(&self, tag: &str, artifact: &Artifact) -> Digest {
        for blob in &artifact.blobs {
            self.blob(blob);
        }
        for document in &artifact.manifests {
            self.manifest(&document.digest().to_string(), document);
        }
        self.manifest(tag, artifact.root());
        artifact.digest()
    }

    /// The body of a GET that must succeed.
    pub fn get(&self, url: &str) -> Vec<u8> {
        let response = self.expect(self.request(Method::GET, url, None, vec![]), StatusCode::OK);
        self.runtime.block_on(response.bytes()).expect("a body").to_vec()
    }
}
