//! From provider addresses to repositories: `repository_template`, include and exclude, by OpenTofu's rules for
//! `oci_mirror`.
