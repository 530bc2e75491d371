# A formula for Homebrew on Linux. scripts/dist fills in what stands between @ signs.
class Tofufs < Formula
  desc "Mount OCI registries as a file system, for OpenTofu and Terraform"
  homepage "@BASE@"
  version "@VERSION@"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on :linux

  on_intel do
    url "@BASE@/tofufs-@VERSION@-x86_64-unknown-linux-musl.tar.gz"
    sha256 "@SHA256:tofufs-@VERSION@-x86_64-unknown-linux-musl.tar.gz@"
  end
  on_arm do
    url "@BASE@/tofufs-@VERSION@-aarch64-unknown-linux-musl.tar.gz"
    sha256 "@SHA256:tofufs-@VERSION@-aarch64-unknown-linux-musl.tar.gz@"
  end

  def install
    bin.install "tofufs"
    man1.install Dir["man/*"]
    bash_completion.install "completions/tofufs"
    zsh_completion.install "completions/_tofufs"
    fish_completion.install "completions/tofufs.fish"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/tofufs --version")
  end
end
