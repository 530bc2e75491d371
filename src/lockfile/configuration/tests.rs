use super::*;

const TF: &str = r#"
terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = { source = "hashicorp/aws", version = "~> 5.0" }
    own = {
      "source" = "Registry.Example/acme/own"
      configuration_aliases = [own.west]
    }
    old = "~> 1.2" # as before 0.13
  }
}
provider "aws" {
  version = ">= 5.1"
  alias   = "west"
}
resource "aws_instance" "a" {
  provider  = aws.west
  user_data = <<-EOT
    #!/bin/sh
    echo ${var.x} %{ if true }y%{ endif }
  EOT
}
resource "null_resource" "n" {}
data "terraform_remote_state" "s" { backend = "local" }
resource "google_thing" "g" { provider = google-beta }
ephemeral "random_password" "p" {}
check "c" {
  data "http" "h" { url = "https://x.example" }
}
module "net" {
  source  = "./net"
  version = "1.0"
  cidr    = [for x in var.y : x if x != ""][0]
}
module "computed" {
  source = "${local.base}/x"
}
"#;

const JSON: &str = r#"{
  "terraform": [{"required_providers": {"aws": {"source": "hashicorp/aws", "version": "~> 5.0"}, "old": "~> 1.2"}},
                {"required_providers": [{"own": {"source": "Registry.Example/acme/own"}}]}],
  "provider": {"aws": [{"version": ">= 5.1", "alias": "west"}, {}]},
  "resource": {"aws_instance": {"a": {"provider": "aws.west"}}, "null_resource": {"n": [{}]},
               "google_thing": {"g": {"provider": "google-beta"}}},
  "data": {"terraform_remote_state": {"s": {"backend": "local"}}},
  "ephemeral": {"random_password": {"p": {}}},
  "check": {"c": {"data": {"http": {"h": {}}}}},
  "module": {"net": {"source": "./net"}, "computed": {"source": "${local.base}/x"}},
  "//": "a comment"
}"#;

fn default() -> Host {
    "registry.opentofu.org".parse().unwrap()
}

#[test]
fn both_syntaxes_say_the_same() {
    let wanted = [
        ("registry.example/acme/own", ""),
        ("registry.opentofu.org/hashicorp/aws", "~> 5.0, >= 5.1.0"),
        ("registry.opentofu.org/hashicorp/google-beta", ""),
        ("registry.opentofu.org/hashicorp/http", ""),
        ("registry.opentofu.org/hashicorp/null", ""),
        ("registry.opentofu.org/hashicorp/old", "~> 1.2"),
        ("registry.opentofu.org/hashicorp/random", ""),
    ];
    for (name, text) in [("main.tf", TF), ("main.tf.json", JSON)] {
        let mut configuration = Configuration::default();
        configuration.add(name, text).unwrap();
        let found = configuration.providers(&default()).unwrap();
        let found: Vec<_> = found.iter().map(|(a, c)| (a.to_string(), c.to_string())).collect();
        let found: Vec<_> = found.iter().map(|(a, c)| (a.as_str(), c.as_str())).collect();
        assert_eq!(found, wanted, "{name}");
        let calls: Vec<_> =
            configuration.calls().map(|c| (c.name.as_str(), c.source.as_deref())).collect();
        assert_eq!(calls, [("computed", None), ("net", Some("./net"))], "{name}");
    }
}

#[test]
fn a_tofu_file_stands_in_for_the_tf_file_of_its_name_and_overrides_come_last() {
    let names = [
        "z.tf",
        "override.tf",
        "a.tf",
        "a.tofu",
        "b.tf.json",
        "b.tofu.json",
        "b.tf",
        "x_override.tofu",
        ".hidden.tf",
        "c.tf~",
        "#d.tf#",
        "readme.md",
        "tests.tftest.hcl",
        "v.tfvars",
    ];
    assert_eq!(
        files_of(names, Client::OpenTofu),
        ["a.tofu", "b.tf", "b.tofu.json", "z.tf", "override.tf", "x_override.tofu"]
    );
    assert_eq!(
        files_of(names, Client::Terraform),
        ["a.tf", "b.tf", "b.tf.json", "z.tf", "override.tf"]
    );
}

#[test]
fn an_override_replaces_what_is_said_about_its_names() {
    let mut configuration = Configuration::default();
    configuration
        .add(
            "main.tf",
            "terraform {\n required_providers {\n a = { source = \"x/a\", version = \"1\" }\n}\n}",
        )
        .unwrap();
    configuration
        .add("override.tf", "terraform {\n required_providers {\n a = { source = \"y/a\" }\n}\n}")
        .unwrap();
    let found = configuration.providers(&default()).unwrap();
    let found: Vec<_> = found.iter().map(|(a, c)| (a.to_string(), c.is_empty())).collect();
    assert_eq!(found, [("registry.opentofu.org/y/a".to_owned(), true)]);
}

#[test]
fn what_cannot_be_read_is_refused_with_its_line() {
    let add = |name: &str, text: &str| Configuration::default().add(name, text).unwrap_err();
    assert_eq!(add("a.tf", "\n\nresource {").line, Some(3));
    assert_eq!(add("a.tf.json", "{\n\"a\": }").line, Some(2));
    let mut wrong = Configuration::default();
    wrong.add("a.tf", "terraform {\nrequired_providers {\nq = \"v1\"\n}\n}").unwrap();
    let said = wrong.providers(&default()).unwrap_err().to_string();
    assert!(said.contains("\"q\"") && said.contains("\"v1\""), "{said}");
}
