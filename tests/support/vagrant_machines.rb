# Prints what Vagrant itself makes of a Vagrantfile, as JSON: `ruby vagrant_machines.rb DIRECTORY SCRATCH PROVIDER`.
gem "vagrant"
require "vagrant"
require "json"
require "pathname"

directory, scratch, provider = ARGV[0], Pathname.new(ARGV[1]), ARGV[2].to_sym
environment = Vagrant::Environment.new(cwd: directory, ui_class: Vagrant::UI::Silent, local_data_path: scratch, home_path: scratch)
machines = environment.machine_names.to_h do |name|
  config = environment.vagrantfile.machine_config(name, provider, nil, scratch)[:config]
  machine = {
    hostname: config.vm.hostname,
    addresses: config.vm.networks.map { |_, options| options[:ip] }.compact,
    memory: config.vm.get_provider_config(provider)&.memory,
    inline: config.vm.provisioners.map { |one| one.config.inline }.compact,
    environment: config.vm.provisioners.map { |one| one.config.env }.reduce({}, :merge),
  }
  [name, machine]
end
puts JSON.generate(machines)
