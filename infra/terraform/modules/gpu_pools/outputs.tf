output "pools" {
  description = "What each pool can hold, by name: node selector, taint, GPUs and capacity."
  value = { for name, pool in var.pools : name => {
    node_selector   = { (var.pool_label) = name }
    taint           = local.gpu_taint
    capacity_type   = pool.capacity_type
    accelerator     = pool.accelerator
    gpus_per_node   = pool.gpus
    gpu_memory      = pool.gpu_memory_gib
    vcpus_per_node  = pool.vcpus
    memory_per_node = pool.memory_gib
    max_nodes       = pool.max_nodes
  } }
}
