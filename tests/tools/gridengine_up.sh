#!/usr/bin/env bash
# Starts Debian's Grid Engine (gridengine-master, -exec and -client) as a cell of this machine alone, on
# loopback, for test_cluster.py. Needs root. It rewrites the host names and the settings of the cell
# `default`, so it is called by hand, on a machine that is no part of a real cluster.
set -euo pipefail
common=/var/lib/gridengine/default/common
/etc/init.d/gridengine-exec stop >/dev/null || true
/etc/init.d/gridengine-master stop >/dev/null || true
echo "localhost $(hostname)" >"$common/host_aliases"
echo localhost >"$common/act_qmaster"
/etc/init.d/gridengine-master start
for _ in {1..30}; do qconf -sm >/dev/null 2>&1 && break; sleep 1; done

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
qconf -as localhost
qconf -se localhost >/dev/null 2>&1 || {
  printf '%s NONE\n' load_scaling complex_values user_lists xuser_lists projects xprojects usage_scaling \
    report_variables | sed '1i hostname localhost' >"$work/host"
  qconf -Ae "$work/host"
}
qconf -sp smp >/dev/null 2>&1 || {
  printf '%s\n' 'pe_name smp' 'slots 999' 'user_lists NONE' 'xuser_lists NONE' 'start_proc_args NONE' \
    'stop_proc_args NONE' 'allocation_rule $pe_slots' 'control_slaves FALSE' 'job_is_first_task TRUE' \
    'urgency_slots min' 'accounting_summary FALSE' 'qsort_args NONE' >"$work/pe"
  qconf -Ap "$work/pe"
}
qconf -sq all.q >/dev/null 2>&1 || {
  {
    printf '%s\n' 'qname all.q' 'hostlist localhost' 'seq_no 0' 'nsuspend 1' 'suspend_interval 00:05:00' \
      'priority 0' 'min_cpu_interval 00:05:00' 'processors UNDEFINED' 'qtype BATCH' 'pe_list smp' \
      'rerun FALSE' 'slots 4' 'tmpdir /tmp' 'shell /bin/sh' 'shell_start_mode posix_compliant' \
      'notify 00:00:60' 'initial_state default'
    printf '%s NONE\n' load_thresholds suspend_thresholds ckpt_list prolog epilog starter_method \
      suspend_method resume_method terminate_method owner_list user_lists xuser_lists subordinate_list \
      complex_values projects xprojects calendar
    printf '%s INFINITY\n' {s,h}_{rt,cpu,fsize,data,stack,core,rss,vmem}
  } >"$work/queue"
  qconf -Aq "$work/queue"
}
qconf -sconf | grep -v '^#' | sed -E 's/^(min_uid|min_gid) .*/\1 0/' >"$work/global"  # root may run jobs
qconf -Mconf "$work/global"
qconf -ssconf | sed -E 's/^(schedule_interval) .*/\1 0:0:1/; s/^(flush_(submit|finish)_sec) .*/\1 1/' >"$work/scheduler"
qconf -Msconf "$work/scheduler"
/etc/init.d/gridengine-exec start
for _ in {1..30}; do qhost -h localhost | grep -q '^localhost .*[0-9]G' && break; sleep 1; done
qhost
