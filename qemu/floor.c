// The floor under stage 1: a PID 1 that makes the same mounts as firn-init, from the same ramdisk, and does nothing else. It has no
// plan, no checks and no registration, and it ends at the first error. The difference to it is the cost of firn.
//
// The ramdisk contains a list of the modules, /modules, and the store image. The kernel parameters are those of firn and, for zero
// copy, `floor.image=FILE,OFFSET,BYTES`. Parameters to try other settings of the loop device:
// `floor.block=BYTES`, `floor.read_ahead=KIB`.

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int kmsg = -1;

static void mark(const char *what)
{
	char line[200];
	int length = snprintf(line, sizeof line, "bench: %s", what);
	if (write(kmsg, line, length) < 0)
		exit(1);
}

// When PID 1 ends, the kernel logs it and panics.
static long check(long result, const char *what)
{
	if (result < 0) {
		char line[200];
		snprintf(line, sizeof line, "floor failed: %s: %s", what, strerror(errno));
		dprintf(2, "%s\n", line);
		if (kmsg >= 0)
			mark(line);
		exit(1);
	}
	return result;
}

static void mount_at(const char *kind, const char *source, const char *target, unsigned long flags, const char *options)
{
	mkdir(target, 0755);
	check(mount(source, target, kind, flags, options), target);
}

// The value of the last parameter that begins with this, in new memory.
static char *word(const char *cmdline, const char *prefix)
{
	char *copy = strdup(cmdline), *found = NULL;
	for (char *at = strtok(copy, " \n"); at; at = strtok(NULL, " \n"))
		if (!strncmp(at, prefix, strlen(prefix)))
			found = at + strlen(prefix);
	return found;
}

static void load_modules(void)
{
	char path[4096];
	FILE *list = fopen("/modules", "re");
	check(list ? 0 : -1, "/modules");
	while (fgets(path, sizeof path, list)) {
		path[strcspn(path, "\n")] = 0;
		int file = check(open(path, O_RDONLY | O_CLOEXEC), path);
		long result = syscall(SYS_finit_module, file, "", 0);
		check(result < 0 && errno == EEXIST ? 0 : result, path);
		close(file);
		unlink(path);
	}
	fclose(list);
}

// Mounts the image with a loop device, which the kernel releases with the mount.
static void mount_image(const char *cmdline, const char *target)
{
	const char *where = word(cmdline, "floor.image="), *block = word(cmdline, "floor.block="),
		   *read_ahead = word(cmdline, "floor.read_ahead=");
	char file[4096] = "/nix-store.squashfs", device[32];
	struct loop_config config = { .info = { .lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR } };
	if (block)
		config.block_size = atoi(block);
	if (where) {
		unsigned long long offset, bytes;
		check(sscanf(where, "%4095[^,],%llu,%llu", file, &offset, &bytes) == 3 ? 0 : -1, "floor.image=");
		config.info.lo_offset = offset;
		config.info.lo_sizelimit = bytes;
	}
	config.fd = check(open(file, O_RDONLY | O_CLOEXEC), file);
	int control = check(open("/dev/loop-control", O_RDWR | O_CLOEXEC), "/dev/loop-control");
	snprintf(device, sizeof device, "/dev/loop%ld", check(ioctl(control, LOOP_CTL_GET_FREE), "LOOP_CTL_GET_FREE"));
	int loop = check(open(device, O_RDONLY | O_CLOEXEC), device);
	check(ioctl(loop, LOOP_CONFIGURE, &config), "LOOP_CONFIGURE");
	if (read_ahead) {
		char queue[64];
		snprintf(queue, sizeof queue, "/sys/block/%s/queue/read_ahead_kb", device + strlen("/dev/"));
		int knob = check(open(queue, O_WRONLY | O_CLOEXEC), queue);
		check(write(knob, read_ahead, strlen(read_ahead)), queue);
		close(knob);
	}
	mkdir(target, 0755);
	if (mount(device, target, "squashfs", MS_RDONLY, NULL))
		check(mount(device, target, "erofs", MS_RDONLY, NULL), "the store image");
	close(loop);
	close(control);
	close(config.fd);
	unlink(file);
}

int main(void)
{
	static const char *const kept[] = { "/dev", "/proc", "/sys", "/run" };
	static char cmdline[4096];

	mount_at("devtmpfs", "devtmpfs", "/dev", MS_NOSUID, "mode=0755");
	mount_at("devpts", "devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=0620,ptmxmode=0666,gid=3");
	mount_at("tmpfs", "tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
	mount_at("proc", "proc", "/proc", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
	mount_at("sysfs", "sysfs", "/sys", MS_NOSUID | MS_NOEXEC | MS_NODEV, NULL);
	mount_at("tmpfs", "tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755");
	kmsg = check(open("/dev/kmsg", O_WRONLY | O_CLOEXEC), "/dev/kmsg");
	mark("step early mounts");

	int file = check(open("/proc/cmdline", O_RDONLY | O_CLOEXEC), "/proc/cmdline");
	check(read(file, cmdline, sizeof cmdline - 1), "/proc/cmdline");
	close(file);
	char *init = word(cmdline, "init=");
	check(init ? 0 : -1, "init=");

	load_modules();
	mark("step modules");

	mount_at("tmpfs", "tmpfs", "/mnt-root", 0, "mode=0755");
	for (int i = 0; i < 4; i++) {
		char target[32];
		snprintf(target, sizeof target, "/mnt-root%s", kept[i]);
		mkdir(target, 0755);
	}
	mark("step root");

	mkdir("/mnt-root/nix", 0755);
	mount_image(cmdline, "/mnt-root/nix/.ro-store");
	mount_at("tmpfs", "tmpfs", "/mnt-root/nix/.rw-store", 0, "mode=0755");
	mkdir("/mnt-root/nix/.rw-store/store", 0755);
	mkdir("/mnt-root/nix/.rw-store/work", 0755);
	mount_at("overlay", "overlay", "/mnt-root/nix/store", 0,
		 "lowerdir=/mnt-root/nix/.ro-store,upperdir=/mnt-root/nix/.rw-store/store,workdir=/mnt-root/nix/.rw-store/work");
	mark("step store");

	for (int i = 0; i < 4; i++) {
		char target[32];
		snprintf(target, sizeof target, "/mnt-root%s", kept[i]);
		check(mount(kept[i], target, NULL, MS_MOVE, NULL), target);
	}
	unlink("/modules");
	unlink("/init");
	check(chdir("/mnt-root"), "/mnt-root");
	check(mount(".", "/", NULL, MS_MOVE, NULL), "moving the root");
	check(chroot("."), "chroot");
	check(chdir("/"), "/");
	int console = check(open("/dev/console", O_RDWR), "/dev/console");
	for (int i = 0; i < 3; i++)
		check(dup2(console, i), "dup2");
	if (console > 2)
		close(console);
	mark("exec");
	execv(init, (char *[]){ init, NULL });
	check(-1, init);
}
