# Which machines there are: cluster.env and the environment in, checked nodes out. Plain Ruby, so that it can be tried without
# Vagrant: `ruby cluster.rb` prints the overlay's node list.

require "ipaddr"

module Cluster
  FILE = File.join(__dir__, "cluster.env")
  ALLOWED = IPAddr.new("192.168.56.0/21")
  WORKERS = 1..30
  SERVER_HOST = 11
  FIRST_WORKER_HOST = 21
  MTU = 1450

  # A setting is wrong; the message names it.
  class Wrong < StandardError; end

  Node = Struct.new(:name, :role, :number, :address, :outside, :memory, :cpus, keyword_init: true)

  # Every setting by its name without the prefix, as text.
  def self.settings(environment = ENV, text = File.read(FILE))
    written = text.scan(/^ISOTHERM_VM_(\w+)=(.*)$/).to_h
    written.to_h { |name, value| [name, environment.fetch("ISOTHERM_VM_#{name}", value).strip] }
  end

  def self.nodes(settings)
    underlay, outside = network(settings, "UNDERLAY"), network(settings, "OUTSIDE")
    wrong("OUTSIDE", settings, "the UNDERLAY is the same: take another /24") if underlay == outside
    workers = number(settings, "WORKERS", WORKERS)
    server = Node.new(
      name: "cp1", role: "server", number: 1, address: host(underlay, SERVER_HOST), outside: host(outside, SERVER_HOST),
      memory: number(settings, "SERVER_MEMORY", 1024..1_048_576), cpus: number(settings, "SERVER_CPUS", 1..256)
    )
    [server] + (1..workers).map do |one|
      Node.new(
        name: "w#{one}", role: "agent", number: one + 1, address: host(underlay, FIRST_WORKER_HOST + one - 1),
        memory: number(settings, "WORKER_MEMORY", 1024..1_048_576), cpus: number(settings, "WORKER_CPUS", 1..256)
      )
    end
  end

  # The overlay's node list, as infra/ovs reads it.
  def self.node_list(settings)
    lines = ["[overlay]", "pods = #{settings["PODS"]}", "underlay = #{settings["UNDERLAY"]}", "mtu = #{MTU}"]
    nodes(settings).each do |node|
      lines += ["", "[node #{node.name}]", "number = #{node.number}", "address = #{node.address}"]
      lines << "outside = #{node.outside}/24" if node.outside
    end
    lines.join("\n") + "\n"
  end

  def self.wrong(name, settings, why)
    raise Wrong, "ISOTHERM_VM_#{name} is #{settings[name].inspect}: #{why}"
  end

  def self.number(settings, name, range)
    text = settings[name].to_s
    wrong(name, settings, "expected a whole number from #{range.first} to #{range.last}") unless
      text.match?(/\A\d{1,7}\z/) && range.cover?(text.to_i)
    text.to_i
  end

  def self.network(settings, name)
    text = settings[name].to_s
    wrong(name, settings, "expected a /24 such as 192.168.56.0/24") unless text.match?(%r{\A[\d.]+\.0/24\z})
    network = IPAddr.new(text)
    wrong(name, settings, "expected a part of #{ALLOWED}/21, all that VirtualBox allows by itself") unless
      ALLOWED.include?(network)
    network
  rescue IPAddr::Error => error
    wrong(name, settings, error.message)
  end

  def self.host(network, number)
    IPAddr.new(network.to_i + number, Socket::AF_INET).to_s
  end
end

if $PROGRAM_NAME == __FILE__
  begin
    print Cluster.node_list(Cluster.settings)
  rescue Cluster::Wrong => error
    abort "cluster.rb: #{error.message}"
  end
end
