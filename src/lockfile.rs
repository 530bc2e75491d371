//! The dependency lock file of OpenTofu and Terraform, `.terraform.lock.hcl`: read, changed, and written as they write it.
