class Coracle < Formula
  desc "Kubernetes for one machine, in one program"
  homepage "@BASE_URL@"
  version "@VERSION@"
  license "Apache-2.0"

  depends_on :linux

  on_linux do
@BUILDS@
  end

  def install
    bin.install "coracle"
    man1.install Dir["man/*.1"]
    bash_completion.install "completions/coracle.bash" => "coracle"
    zsh_completion.install "completions/_coracle"
    fish_completion.install "completions/coracle.fish"
    doc.install "README.md", "THIRD-PARTY.txt"
  end

  def caveats
    "Clusters need Docker and, for their service network, nftables."
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/coracle --version")
  end
end
